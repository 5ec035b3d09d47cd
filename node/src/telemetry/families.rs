//! Every metric of the node in one table: name, kind, labels and what it means. `docs/metrics.md` is made from it.
//!
//! Always true:
//! - A sample belongs to a [`Family`] of this table, so nothing is exposed that is not documented.
//! - A counter's name ends in `_total`; times are in seconds and sizes in bytes, as Prometheus wants it.

use std::fmt::Write as _;

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only up, from 0 at the start of the node.
    Counter,
    /// Up and down.
    Gauge,
    /// Counts below bounds, with a sum.
    Histogram,
}

impl Kind {
    /// The word of the text format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! families {
    ($($variant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        /// A metric with all its labels' values.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(usize)]
        pub enum Family {
            $(#[doc = $help] $variant,)+
        }

        impl Family {
            /// All of them, in the order in which they are shown.
            pub const ALL: &'static [Family] = &[$(Family::$variant),+];

            /// The metric's name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// How it moves.
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)+ }
            }

            /// The names of its labels.
            pub fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label),*],)+ }
            }

            /// What it means, one sentence.
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)+ }
            }
        }
    };
}

families! {
    Info = Gauge "brim_info" ["version"] "Always 1; the version of the node is in the label.";
    StartTime = Gauge "brim_start_time_seconds" [] "When the node started, in seconds since 1970.";
    ConfigReloads = Counter "brim_config_reloads_total" ["outcome"] "Reloads of the configuration, applied or rejected.";

    ConnectionsAccepted = Counter "brim_connections_accepted_total" [] "Connections accepted, those closed at once among them.";
    ConnectionsClosed = Counter "brim_connections_closed_total" ["reason"] "Connections that this node closed on its own: a limit, a deadline, a flood of frames, the end of a drain.";
    ConnectionsOpen = Gauge "brim_connections_open" [] "Connections of clients that are open now.";
    AcceptErrors = Counter "brim_accept_errors_total" [] "Failures to accept a connection, such as no free file descriptor.";
    TlsHandshakes = Counter "brim_tls_handshakes_total" [] "TLS handshakes with clients that succeeded.";
    TlsHandshakeFailures = Counter "brim_tls_handshake_failures_total" [] "TLS handshakes that failed or took too long.";

    Requests = Counter "brim_requests_total" ["site", "outcome", "status"] "Requests answered: hit, forward, collapsed (another request's forward) or refused (by this node itself), by class of status.";
    RequestDuration = Histogram "brim_request_duration_seconds" ["outcome"] "From the head of a request to the end of its response.";
    CacheHits = Counter "brim_cache_hits_total" ["site"] "Requests answered from the store without asking the origin.";
    Forwards = Counter "brim_forwards_total" ["reason"] "Requests that went to the origin, or waited for one that did, by the reason of RFC 9211.";
    InterimResponses = Counter "brim_interim_responses_total" ["outcome"] "Interim responses (1xx) of origins, relayed to the client or dropped: too many, too long, or too late.";
    ForwardDuration = Histogram "brim_forward_duration_seconds" [] "From the start of a forward to the head of the origin's response.";
    ResponsesStored = Counter "brim_responses_stored_total" [] "Responses that were stored, or freshened what is stored.";
    BytesSent = Counter "brim_sent_bytes_total" ["site"] "Bytes of content sent to clients.";
    BytesReceived = Counter "brim_received_bytes_total" ["site"] "Bytes of content received from clients.";

    StoreMemoryBytes = Gauge "brim_store_memory_bytes" [] "Bytes in the memory tier.";
    StoreMemoryMax = Gauge "brim_store_memory_max_bytes" [] "Bytes that the memory tier may hold.";
    StoreDiskState = Gauge "brim_store_disk_state" ["state"] "1 for the state of the disk tier: opening, ready, paused (read, not written), failed (another one is being made) or closed; 0 for the others.";
    StoreDiskBytes = Gauge "brim_store_disk_bytes" ["part"] "Bytes of the store on disk, in segments and in the index.";
    StoreDiskMax = Gauge "brim_store_disk_max_bytes" [] "Bytes that the store may use on disk.";
    StoreLiveBytes = Gauge "brim_store_live_bytes" ["part"] "Bytes on disk that stored responses need, in segments and as index entries.";
    StoreSegments = Gauge "brim_store_segments" [] "Segment files.";
    StoreEntries = Gauge "brim_store_entries" ["tier"] "Cache keys in the memory tier, stored responses on disk.";
    StoreQueuedBytes = Gauge "brim_store_queued_bytes" [] "Bytes that wait to be written to disk.";
    StoreWrites = Counter "brim_store_writes_total" [] "Responses written to disk.";
    StoreWrittenBytes = Counter "brim_store_written_bytes_total" [] "Bytes of them in segments.";
    StoreWritesDropped = Counter "brim_store_writes_dropped_total" [] "Responses that were not written to disk: the queue was full, there was no room, or writing failed.";
    StoreWriteErrors = Counter "brim_store_write_errors_total" [] "Writes to disk that failed.";
    StoreNotAdmitted = Counter "brim_store_not_admitted_total" [] "Responses that were not written to a full disk because they were asked for once.";
    StoreDemoted = Counter "brim_store_demoted_total" [] "Responses that were written when they had to leave memory, because they had been hit there.";
    StoreEvictions = Counter "brim_store_evictions_total" [] "Stored responses removed from disk to make room.";
    StoreSegmentsEvicted = Counter "brim_store_segments_evicted_total" [] "Segments removed to make room.";
    StoreMoved = Counter "brim_store_moved_total" [] "Stored responses that were written again when their segment had to go, because they were in use.";
    StoreSegmentsCompacted = Counter "brim_store_segments_compacted_total" [] "Segments emptied for the dead bytes in them.";
    StoreCompactedBytes = Counter "brim_store_compacted_bytes_total" [] "Bytes that were moved for that.";
    StoreCompaction = Counter "brim_store_compaction_seconds_total" [] "Time of the thread that writes which went into that.";
    StoreIndexRebuilds = Counter "brim_store_index_rebuilds_total" [] "Times the index was copied into a new database, for the space it had not given back.";
    StoreLoads = Counter "brim_store_loads_total" ["outcome"] "Look-ups that asked the disk, by whether something was found.";
    StoreReadFailures = Counter "brim_store_read_failures_total" [] "Stored responses refused because key, length or checksum did not match.";
    StoreLoadsGivenUp = Counter "brim_store_loads_given_up_total" [] "Loads from disk that were given up: the queue was full or the deadline passed.";
    StoreQuarantines = Counter "brim_store_quarantines_total" [] "Times the store was set aside as damaged, failed or foreign and started empty.";
    StoreStalls = Counter "brim_store_stalls_total" [] "Times the disk tier was given up because it did not answer.";
    FillsAborted = Counter "brim_fills_aborted_total" [] "Fills that broke off: the origin, or a content that was none.";
    FillsUnread = Counter "brim_fills_unread_total" [] "Fills that were ended because all their clients had left and much was missing.";
    FillsUnderWay = Gauge "brim_fills_under_way" [] "Fetches that other requests can wait for now.";

    Purges = Counter "brim_purges_total" [] "Purges and invalidations that were acknowledged.";
    PurgePosition = Gauge "brim_purge_position" [] "Position of the latest purge.";
    PurgeMarks = Gauge "brim_purge_marks" [] "Names and prefixes for which the purge clock remembers a purge.";
    PurgeWalks = Counter "brim_purge_walks_total" [] "Looks at all that is stored, to count what purges hit that many responses carry.";
    PurgesUncounted = Gauge "brim_purges_uncounted" [] "Purges that hold and whose hits are still to be counted.";
    PurgeLogBytes = Gauge "brim_purge_log_bytes" [] "Bytes of the purge log.";
    PurgeLogFailing = Gauge "brim_purge_log_failing" [] "1 while the purge log cannot be written and purges are refused.";

    AdminRefusals = Counter "brim_admin_refusals_total" ["reason"] "Calls of the admin API that were refused: unauthorized, forbidden, rate_limited or blast_radius.";
    AuditLines = Counter "brim_audit_lines_total" [] "Lines of the audit log that were written.";
    AuditDropped = Counter "brim_audit_dropped_total" [] "Lines of the audit log that were lost: the queue was full or writing failed.";

    SurrogateKeysCut = Counter "brim_surrogate_keys_cut_total" ["site"] "Responses with more or longer surrogate keys than can be kept: not stored, or stored with those that fit, as their route says.";
    Untagged = Counter "brim_untagged_total" ["site"] "Responses that were not stored because the plugin that gives them surrogate keys is missing or failed.";
    ContentsUnread = Counter "brim_contents_unread_total" ["site"] "Contents that no rule could read for surrogate keys or for what a write purges: too long, too late, encoded or a part. More is purged for them.";
    InvalidationFailures = Counter "brim_invalidation_failures_total" ["site"] "Writes after which the plugin that says what they purge is missing or failed.";
    Refreshes = Counter "brim_refreshes_total" ["outcome"] "Responses that a soft purge made stale and that were asked for: validated in the background, failed, or left to be validated on demand.";
    InvalidationRetries = Gauge "brim_invalidation_retries" [] "Calls of invalidation rules that failed and wait to be made again.";

    PluginCalls = Counter "brim_plugin_calls_total" ["plugin"] "Decisions asked of a plugin.";
    PluginMemoHits = Counter "brim_plugin_memo_hits_total" ["plugin"] "Decisions answered from the memory of earlier ones, without running the plugin.";
    PluginFaults = Counter "brim_plugin_faults_total" ["plugin", "kind"] "Calls that failed; their requests bypassed the cache.";
    PluginSeconds = Counter "brim_plugin_seconds_total" ["plugin"] "Time spent inside a plugin.";

    OriginRequests = Counter "brim_origin_requests_total" ["origin", "endpoint"] "Requests handed to an endpoint.";
    OriginErrors = Counter "brim_origin_errors_total" ["origin", "endpoint", "kind"] "Requests that got no usable response.";
    OriginRetries = Counter "brim_origin_retries_total" ["origin", "endpoint"] "Requests sent again because a kept connection was found closed.";
    OriginConnects = Counter "brim_origin_connects_total" ["origin", "endpoint"] "Connections made.";
    OriginReused = Counter "brim_origin_reused_total" ["origin", "endpoint"] "Requests sent on a connection that had served another one before.";
    OriginConnectionsOpen = Gauge "brim_origin_connections_open" ["origin", "endpoint"] "Connections that are open now.";
    OriginConnectionsIdle = Gauge "brim_origin_connections_idle" ["origin", "endpoint"] "Open connections that serve no request now.";
    OriginWaiting = Gauge "brim_origin_waiting" ["origin", "endpoint"] "Requests that wait for a connection now.";
    OriginFurtherAttempts = Counter "brim_origin_further_attempts_total" ["origin", "why"] "Requests that went to a further endpoint: unreachable, failed, status or hedge.";
    OriginHedgesWon = Counter "brim_origin_hedges_won_total" ["origin"] "Hedges that were answered first.";
    OriginRetriesUnpaid = Counter "brim_origin_retries_unpaid_total" ["origin"] "Repetitions that the budget did not allow.";
    OriginRequestsLimit = Gauge "brim_origin_requests_limit" ["origin"] "Requests that the origin is given at a time, where that has a bound.";
    OriginResolveFailing = Gauge "brim_origin_resolve_failing" ["origin"] "Names of the origin whose last look-up failed; their last good answers stay.";
    OriginWarmed = Counter "brim_origin_warmed_total" ["origin", "endpoint"] "Connections made before a request needed them.";
    OriginInFlight = Gauge "brim_origin_in_flight" ["origin", "endpoint"] "Requests that are not answered to their end.";
    OriginEndpointState = Gauge "brim_origin_endpoint_state" ["origin", "endpoint", "state"] "1 for the state that the endpoint is in: healthy, unhealthy, ejected or draining.";
    OriginEjections = Counter "brim_origin_ejections_total" ["origin", "endpoint"] "Times the endpoint was ejected because requests failed.";
    OriginChecks = Counter "brim_origin_checks_total" ["origin", "endpoint", "outcome"] "Health checks, good or bad.";
    OriginWait = Histogram "brim_origin_wait_seconds" ["origin", "endpoint"] "How long requests waited for a connection.";

    AccessLogLines = Counter "brim_access_log_lines_total" [] "Lines of the access log that were written.";
    AccessLogDropped = Counter "brim_access_log_dropped_total" [] "Lines of the access log that were dropped: the queue was full or writing failed.";
    SeriesDropped = Counter "brim_metrics_series_dropped_total" [] "Counts that were lost because there are too many combinations of labels.";
}

/// `docs/metrics.md`, whole.
pub fn documentation() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the admin listener, in the text format of Prometheus; no token is needed.\n\
         Counters start at 0 with the node. A label that does not apply is empty: `site` of a request that no site serves.\n\
         The first 1000 sites have series of their own, later ones share `site=\"other\"`.\n\n\
         Made from the table in `node/src/telemetry/families.rs`, whose tests compare it with this page.\n\n\
         | metric | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in Family::ALL {
        let labels: Vec<_> = family.labels().iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, labels) = (family.name(), family.kind().as_str(), labels.join(", "));
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {} |", family.help());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_and_are_unique() {
        let mut names: Vec<_> = Family::ALL.iter().map(|family| family.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Family::ALL.len());
        for (place, family) in Family::ALL.iter().enumerate() {
            assert_eq!(*family as usize, place, "the table is indexed by the enum");
            let name = family.name();
            assert!(
                name.starts_with("brim_") && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), family.kind() == Kind::Counter, "{name}");
            assert!(family.help().ends_with('.'), "{name}");
            assert!(!family.labels().contains(&"le"), "{name}");
        }
    }

    /// `cargo test` prints the page that is expected; put it into `docs/metrics.md`.
    #[test]
    fn the_documentation_lists_every_metric() {
        let page = include_str!("../../../docs/metrics.md");
        assert!(page == documentation(), "docs/metrics.md should be:\n{}", documentation());
    }
}
