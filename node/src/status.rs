//! What the node tells about itself on request: `/v1/status`, and what metrics ask at a scrape.
//!
//! Always true: looking changes nothing and waits for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use brim_store::{DiskState, StoreStats};

use crate::admin::{AuditCounts, EndpointStatus, NodeStatus, OriginStatus, RequestStatus, StoreStatus};
use crate::config::Config;
use crate::node::Shared;
use crate::origin::{AttemptCounts, EndpointSnapshot, EndpointState, Further, WAIT_BUCKETS_MS};
use crate::telemetry::{Family, Metrics, Scrape};

/// The figures of `/v1/status`.
pub(crate) fn node_status(shared: &Shared) -> NodeStatus {
    let cache = &shared.cache;
    let snapshot = cache.snapshot.load();
    let stats = cache.store.stats();
    let totals = cache.telemetry.metrics.totals();
    let looked_up = totals.hits + totals.forwards + totals.collapsed;
    let http = shared.http.iter().map(|address| format!("http://{address}"));
    let https = shared.https.iter().map(|address| format!("https://{address}"));
    NodeStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: shared.started.elapsed().as_secs(),
        listeners: http.chain(https).collect(),
        sites: snapshot.routes.sites().iter().map(|site| site.name.to_string()).collect(),
        store: store_status(&stats, &snapshot.config),
        requests: RequestStatus {
            count: totals.requests,
            hits: totals.hits,
            hit_ratio: (looked_up > 0).then(|| totals.hit_ratio()),
        },
        purge_position: stats.position.0,
        invalidation_retries: cache.retries.count() as u64,
        origins: snapshot.origins.snapshot().into_iter().map(origin_status).collect(),
    }
}

fn store_status(stats: &StoreStats, config: &Config) -> StoreStatus {
    let (state, reason) = disk_state(&stats.disk);
    StoreStatus {
        responses: stats.stored_count,
        responses_on_disk: stats.written_count,
        disk: state.to_owned(),
        disk_reason: reason.map(str::to_owned),
        purge_log_failure: stats.purge_log_failure.clone(),
        disk_bytes: stats.segment_bytes + stats.index_bytes,
        disk_bytes_max: config.store.disk_max,
        disk_full: stats.is_disk_full,
        segments: stats.segment_count,
        segment_bytes: stats.segment_bytes,
        live_bytes: stats.live_bytes,
        index_bytes: stats.index_bytes,
        index_live_bytes: stats.entry_bytes,
        memory_bytes: stats.memory_bytes,
        memory_bytes_max: config.store.memory_max,
        memory_keys: stats.memory_keys,
        queued_bytes: stats.queued_bytes,
        writes: stats.writes,
        writes_dropped: stats.writes_dropped,
        write_errors: stats.write_errors,
        not_admitted: stats.not_admitted,
        evicted: stats.responses_evicted,
        segments_compacted: stats.segments_compacted,
        index_rebuilds: stats.index_rebuilds,
        unreadable: stats.damaged,
        quarantines: stats.quarantined,
        stalls: stats.stalls,
        purge_marks: stats.purge_marks,
        purge_log_bytes: stats.purge_log_bytes,
    }
}

/// All states of a disk tier.
const DISK_STATES: [&str; 5] = ["opening", "ready", "paused", "failed", "closed"];

fn disk_state(disk: &DiskState) -> (&'static str, Option<&str>) {
    match disk {
        DiskState::Opening => (DISK_STATES[0], None),
        DiskState::Ready => (DISK_STATES[1], None),
        DiskState::Paused(reason) => (DISK_STATES[2], Some(reason)),
        DiskState::Failed(reason) => (DISK_STATES[3], Some(reason)),
        DiskState::Closed => (DISK_STATES[4], None),
    }
}

pub(crate) fn origin_status(origin: crate::origin::OriginSnapshot) -> OriginStatus {
    let milliseconds = |duration: std::time::Duration| duration.as_secs_f64() * 1_000.0;
    let endpoints = origin.endpoints.into_iter().map(|endpoint| EndpointStatus {
        url: endpoint.url,
        state: endpoint.health.state.as_str().to_owned(),
        reason: endpoint.health.reason,
        resolve_failure: endpoint.resolve_failure,
        weight: endpoint.weight,
        priority: endpoint.priority,
        region: endpoint.region,
        connections: endpoint.pool.open as u64,
        connections_idle: endpoint.pool.idle as u64,
        in_flight: endpoint.in_flight as u64,
        waiting: endpoint.pool.waiting as u64,
        latency_ms: endpoint.latency.map(milliseconds),
        round_trip_ms: endpoint.round_trip.map(milliseconds),
        requests: endpoint.counts.requests,
        failures: endpoint.counts.errors.iter().map(|(_, count)| count).sum(),
        ejections: endpoint.health.ejections,
        checks: endpoint.health.checks.0,
        checks_failed: endpoint.health.checks.1,
    });
    OriginStatus { name: origin.name, endpoints: endpoints.collect(), discovery_failures: origin.discovery_failures }
}

/// Lets metrics ask the audit log.
pub(crate) fn tell_audit(metrics: &Metrics, counts: Arc<AuditCounts>) {
    metrics.on_scrape(move |scrape| {
        scrape.set(Family::AuditLines, &[], counts.written.load(Ordering::Relaxed));
        scrape.set(Family::AuditDropped, &[], counts.dropped.load(Ordering::Relaxed));
    });
}

/// Lets metrics ask everybody who counts for himself.
pub(crate) fn tell_metrics(shared: &Arc<Shared>) {
    let started = SystemTime::now();
    // Weak: the node's telemetry must not keep the node.
    let node = Arc::downgrade(shared);
    shared.cache.telemetry.metrics.on_scrape(move |scrape| {
        let Some(shared) = node.upgrade() else { return };
        scrape.set(Family::Info, &[env!("CARGO_PKG_VERSION")], 1_u64);
        scrape.set(Family::StartTime, &[], started.duration_since(UNIX_EPOCH).unwrap_or_default());
        tell_connections(&shared, scrape);
        tell_store(&shared, scrape);
        tell_plugins(&shared, scrape);
        for origin in shared.cache.snapshot.load().origins.snapshot() {
            tell_attempts(&origin.name, &origin.attempts, scrape);
            let failing = origin.endpoints.iter().filter(|endpoint| endpoint.resolve_failure.is_some()).count();
            let failing = failing + origin.discovery_failures.len();
            scrape.set(Family::OriginResolveFailing, &[&origin.name], failing);
            if let Some(limit) = origin.requests_limit {
                scrape.set(Family::OriginRequestsLimit, &[&origin.name], limit);
            }
            for endpoint in &origin.endpoints {
                tell_endpoint(&origin.name, endpoint, scrape);
            }
        }
    });
}

fn tell_connections(shared: &Shared, scrape: &mut Scrape) {
    let counters = &shared.counters;
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    scrape.set(Family::ConnectionsAccepted, &[], read(&counters.accepted));
    scrape.set(Family::ConnectionsOpen, &[], read(&counters.open));
    scrape.set(Family::AcceptErrors, &[], read(&counters.accept_errors));
    scrape.set(Family::TlsHandshakes, &[], read(&counters.tls_handshakes));
    scrape.set(Family::TlsHandshakeFailures, &[], read(&counters.tls_failures));
    for (reason, count) in [
        ("connections_max", &counters.refused),
        ("slow_head", &counters.slow_heads),
        ("idle", &counters.idle_closed),
        ("stalled", &counters.stalled),
        ("flood", &counters.floods),
        ("drain", &counters.drain_aborted),
    ] {
        scrape.set(Family::ConnectionsClosed, &[reason], read(count));
    }
}

fn tell_store(shared: &Shared, scrape: &mut Scrape) {
    let stats = shared.cache.store.stats();
    let snapshot = shared.cache.snapshot.load();
    scrape.set(Family::StoreMemoryBytes, &[], stats.memory_bytes);
    scrape.set(Family::StoreMemoryMax, &[], snapshot.config.store.memory_max);
    scrape.set(Family::StoreDiskMax, &[], snapshot.config.store.disk_max);
    scrape.set(Family::StoreEntries, &["memory"], stats.memory_keys);
    scrape.set(Family::FillsAborted, &[], stats.fills_aborted);
    scrape.set(Family::FillsUnread, &[], stats.fills_unread);
    scrape.set(Family::FillsUnderWay, &[], shared.cache.flights.len());
    scrape.set(Family::Purges, &[], stats.purges);
    scrape.set(Family::PurgePosition, &[], stats.position.0);
    scrape.set(Family::PurgeWalks, &[], stats.purge_walks);
    scrape.set(Family::PurgesUncounted, &[], stats.purges_uncounted);
    scrape.set(Family::PurgeMarks, &[], stats.purge_marks);
    scrape.set(Family::PurgeLogBytes, &[], stats.purge_log_bytes);
    scrape.set(Family::PurgeLogFailing, &[], u64::from(stats.purge_log_failure.is_some()));
    tell_disk(&stats, scrape);
}

fn tell_disk(stats: &StoreStats, scrape: &mut Scrape) {
    let present = disk_state(&stats.disk).0;
    for state in DISK_STATES {
        scrape.set(Family::StoreDiskState, &[state], u64::from(state == present));
    }
    scrape.set(Family::StoreDiskBytes, &["segments"], stats.segment_bytes);
    scrape.set(Family::StoreDiskBytes, &["index"], stats.index_bytes);
    scrape.set(Family::StoreLiveBytes, &["segments"], stats.live_bytes);
    scrape.set(Family::StoreLiveBytes, &["index"], stats.entry_bytes);
    scrape.set(Family::StoreSegments, &[], stats.segment_count);
    scrape.set(Family::StoreEntries, &["disk"], stats.written_count);
    scrape.set(Family::StoreQueuedBytes, &[], stats.queued_bytes);
    scrape.set(Family::StoreWrites, &[], stats.writes);
    scrape.set(Family::StoreWrittenBytes, &[], stats.bytes_written);
    scrape.set(Family::StoreWritesDropped, &[], stats.writes_dropped);
    scrape.set(Family::StoreWriteErrors, &[], stats.write_errors);
    scrape.set(Family::StoreNotAdmitted, &[], stats.not_admitted);
    scrape.set(Family::StoreDemoted, &[], stats.demoted);
    scrape.set(Family::StoreEvictions, &[], stats.responses_evicted);
    scrape.set(Family::StoreSegmentsEvicted, &[], stats.segments_evicted);
    scrape.set(Family::StoreMoved, &[], stats.moved);
    scrape.set(Family::StoreSegmentsCompacted, &[], stats.segments_compacted);
    scrape.set(Family::StoreCompactedBytes, &[], stats.compacted_bytes);
    scrape.set(Family::StoreCompaction, &[], stats.compaction);
    scrape.set(Family::StoreIndexRebuilds, &[], stats.index_rebuilds);
    scrape.set(Family::StoreLoads, &["found"], stats.loads_found);
    let absent = stats.loads.saturating_sub(stats.loads_found).saturating_sub(stats.loads_given_up);
    scrape.set(Family::StoreLoads, &["absent"], absent);
    scrape.set(Family::StoreReadFailures, &[], stats.damaged);
    scrape.set(Family::StoreLoadsGivenUp, &[], stats.loads_given_up);
    scrape.set(Family::StoreQuarantines, &[], stats.quarantined);
    scrape.set(Family::StoreStalls, &[], stats.stalls);
}

fn tell_plugins(shared: &Shared, scrape: &mut Scrape) {
    scrape.set(Family::InvalidationRetries, &[], shared.cache.retries.count() as u64);
    for plugin in shared.cache.plugins.list() {
        let Some(stats) = &plugin.stats else { continue };
        let name = plugin.name.as_str();
        scrape.set(Family::PluginCalls, &[name], stats.calls);
        scrape.set(Family::PluginMemoHits, &[name], stats.memo_hits);
        scrape.set(Family::PluginSeconds, &[name], stats.time);
        for (kind, count) in stats.faults.by_kind() {
            scrape.set(Family::PluginFaults, &[name, kind], count);
        }
    }
}

fn tell_attempts(origin: &str, counts: &AttemptCounts, scrape: &mut Scrape) {
    for (why, count) in Further::ALL.iter().zip(counts.further) {
        scrape.set(Family::OriginFurtherAttempts, &[origin, why.as_str()], count);
    }
    scrape.set(Family::OriginHedgesWon, &[origin], counts.hedges_won);
    scrape.set(Family::OriginRetriesUnpaid, &[origin], counts.unpaid);
}

fn tell_endpoint(origin: &str, endpoint: &EndpointSnapshot, scrape: &mut Scrape) {
    let labels = [origin, endpoint.url.as_str()];
    let (pool, counts) = (&endpoint.pool, &endpoint.counts);
    scrape.set(Family::OriginRequests, &labels, counts.requests);
    scrape.set(Family::OriginRetries, &labels, counts.retries);
    scrape.set(Family::OriginConnects, &labels, counts.connects);
    scrape.set(Family::OriginReused, &labels, counts.reused);
    for (kind, count) in &counts.errors {
        scrape.set(Family::OriginErrors, &[origin, &endpoint.url, kind.as_str()], *count);
    }
    scrape.set(Family::OriginConnectionsOpen, &labels, pool.open);
    scrape.set(Family::OriginConnectionsIdle, &labels, pool.idle);
    scrape.set(Family::OriginWaiting, &labels, pool.waiting);
    scrape.set(Family::OriginWarmed, &labels, counts.warmed);
    scrape.set(Family::OriginInFlight, &labels, endpoint.in_flight);
    for state in EndpointState::ALL {
        let is_it = u64::from(endpoint.health.state == state);
        scrape.set(Family::OriginEndpointState, &[origin, &endpoint.url, state.as_str()], is_it);
    }
    scrape.set(Family::OriginEjections, &labels, endpoint.health.ejections);
    let (checks, failed) = endpoint.health.checks;
    scrape.set(Family::OriginChecks, &[origin, &endpoint.url, "good"], checks - failed.min(checks));
    scrape.set(Family::OriginChecks, &[origin, &endpoint.url, "bad"], failed);
    let bounds = WAIT_BUCKETS_MS.map(|bound_ms| std::time::Duration::from_millis(bound_ms).as_secs_f64());
    scrape.histogram(Family::OriginWait, &labels, &bounds, &counts.wait_buckets, counts.wait_sum.as_secs_f64());
}
