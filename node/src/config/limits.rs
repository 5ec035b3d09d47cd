//! Every number of the configuration: its default, and the least and the most that is accepted.
//!
//! Always true:
//! - A default lies within its own bounds (tested below).
//! - What a bound protects is said beside it; what happens when a limit is *reached* is said where it is enforced.

use std::time::Duration;

/// The default of a number and its bounds, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit<T> {
    /// Used when the key is absent.
    pub default: T,
    /// The least that is accepted.
    pub min: T,
    /// The most that is accepted.
    pub max: T,
}

const fn limit<T: Copy>(default: T, min: T, max: T) -> Limit<T> {
    Limit { default, min, max }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3_600)
}

// [listen]

/// `listen.threads`: one runtime a thread. The default is replaced by the number of cores.
pub const THREADS: Limit<usize> = limit(1, 1, 256);
/// `listen.connections_max`: over all listeners. One costs a file descriptor and some KiB.
pub const CONNECTIONS_MAX: Limit<usize> = limit(10_000, 1, 1_000_000);
/// `listen.streams_max`: concurrent HTTP/2 streams of one connection; RFC 9113 §6.5.2 advises at least 100.
pub const STREAMS_MAX: Limit<u32> = limit(128, 1, 10_000);
/// `listen.head_bytes_max`: the head of one request; hyper needs 8 KiB to read any.
pub const HEAD_BYTES_MAX: Limit<u64> = limit(64 * KIB, 8 * KIB, MIB);
/// `listen.header_count_max`: fields of one request head.
pub const HEADER_COUNT_MAX: Limit<usize> = limit(100, 16, 1_000);
/// `listen.query_content_max`: the content of a QUERY that is read into its cache key; it is held in memory meanwhile.
pub const QUERY_CONTENT_MAX: Limit<u64> = limit(64 * KIB, 0, 16 * MIB);
/// `listen.handshake_timeout`: from accept to a finished TLS handshake.
pub const HANDSHAKE_TIMEOUT: Limit<Duration> = limit(seconds(10), ms(100), seconds(120));
/// `listen.header_timeout`: from the first byte of a request to the end of its head.
pub const HEADER_TIMEOUT: Limit<Duration> = limit(seconds(10), ms(100), seconds(120));
/// `listen.idle_timeout`: a kept connection between two requests.
pub const IDLE_TIMEOUT: Limit<Duration> = limit(seconds(60), ms(100), hours(1));
/// `listen.body_idle_timeout` and `origins.<name>.body_idle_timeout`: between two chunks of a body.
pub const BODY_IDLE_TIMEOUT: Limit<Duration> = limit(seconds(30), ms(100), hours(1));
/// `listen.drain_timeout`: how long a shutdown waits for requests in flight.
pub const DRAIN_TIMEOUT: Limit<Duration> = limit(seconds(10), ms(0), hours(1));

// [admin]

/// `admin.purges_per_minute`: of one token, and how many at once; 0 = any number.
pub const PURGES_PER_MINUTE: Limit<u32> = limit(600, 0, 1_000_000);
/// `admin.blast_radius_max`: stored responses that a purge may hit unconfirmed; absent = any number.
pub const BLAST_RADIUS_MAX: Limit<u64> = limit(100_000, 0, 1_000_000_000);
/// `admin.blast_radius_share`: percentage of the stored responses that a purge may hit unconfirmed; absent = any.
pub const BLAST_RADIUS_SHARE: Limit<u32> = limit(50, 0, 100);

// [store]

/// `store.disk_max`: at least one segment.
pub const DISK_MAX: Limit<u64> = limit(10 * GIB, 64 * MIB, 64 * TIB);
/// `store.memory_max`: the memory tier.
pub const MEMORY_MAX: Limit<u64> = limit(512 * MIB, MIB, 4 * TIB);
/// `store.object_max`: the longest content that is stored; never more than `store.disk_max`.
pub const OBJECT_MAX: Limit<u64> = limit(5 * GIB, KIB, 16 * TIB);
/// `store.range_whole_max`: the longest representation of which a request for one range has the whole fetched.
pub const RANGE_WHOLE_MAX: Limit<u64> = limit(8 * MIB, 0, 16 * TIB);
/// `store.finish_unread`: what may be missing of a fill that nobody reads any more.
pub const FINISH_UNREAD: Limit<u64> = limit(8 * MIB, 0, 16 * TIB);

// [plugins]

/// `plugins.key_deadline`: one call of a cache-key rule. The ticker that enforces it ticks once a millisecond.
pub const KEY_DEADLINE: Limit<Duration> = limit(ms(5), ms(1), seconds(1));
/// `plugins.invalidation_deadline`: one call of an invalidation rule.
pub const INVALIDATION_DEADLINE: Limit<Duration> = limit(ms(5), ms(1), seconds(1));
/// `plugins.memory_max`: linear memory of one instance.
pub const PLUGIN_MEMORY_MAX: Limit<u64> = limit(16 * MIB, MIB, 256 * MIB);
/// `plugins.instances_max`: instances alive at one time, over all plugins; address space is reserved for each.
pub const INSTANCES_MAX: Limit<u32> = limit(64, 1, 1_000);
/// `plugins.component_bytes_max`: one uploaded component.
pub const COMPONENT_BYTES_MAX: Limit<u64> = limit(16 * MIB, 64 * KIB, 64 * MIB);
/// Entries in one `[plugins.config.<plugin>]`.
pub const PLUGIN_CONFIG_ENTRIES_MAX: usize = 64;
/// Bytes of one value in `[plugins.config.<plugin>]`.
pub const PLUGIN_CONFIG_VALUE_BYTES_MAX: usize = 4 * 1024;

// [origins.<name>]

/// `origins.<name>.connections_max`: to one endpoint.
pub const ORIGIN_CONNECTIONS_MAX: Limit<usize> = limit(64, 1, 65_536);
/// `origins.<name>.connect_timeout`: TCP and TLS together.
pub const CONNECT_TIMEOUT: Limit<Duration> = limit(seconds(2), ms(1), seconds(120));
/// `origins.<name>.response_timeout`: from the end of the request to the head of the response.
/// At most ten minutes: requests that wait for another one's fetch wait a little longer than this. An API that takes half a
/// minute for a report is slow, not dead.
pub const RESPONSE_TIMEOUT: Limit<Duration> = limit(seconds(60), ms(1), seconds(600));
/// `origins.<name>.idle_timeout`: a kept connection that nothing uses.
pub const ORIGIN_IDLE_TIMEOUT: Limit<Duration> = limit(seconds(60), ms(100), hours(1));
/// `origins.<name>.queue_max`: requests that wait for a connection; 0 = none waits.
pub const QUEUE_MAX: Limit<usize> = limit(1_024, 0, 1_000_000);
/// `origins.<name>.queue_timeout`: how long one of them waits.
pub const QUEUE_TIMEOUT: Limit<Duration> = limit(seconds(30), ms(1), seconds(120));
/// `origins.<name>.connections_min`: connections that are kept open to each endpoint, used or not.
pub const ORIGIN_CONNECTIONS_MIN: Limit<usize> = limit(0, 0, 65_536);
/// `origins.<name>.connection_age_max`: an older connection takes no further request.
pub const CONNECTION_AGE_MAX: Limit<Duration> = limit(hours(24), seconds(1), hours(24 * 30));
/// `origins.<name>.connection_requests_max`: a connection that has served so many takes no further one.
pub const CONNECTION_REQUESTS_MAX: Limit<u64> = limit(1_000_000, 1, 1_000_000_000);
/// `origins.<name>.panic_threshold`: below this percentage of endpoints in order, health counts no more; 0 = it always counts.
pub const PANIC_THRESHOLD: Limit<u32> = limit(50, 0, 100);
/// `origins.<name>.slow_start`: how long an endpoint that comes back grows into its share; 0 = it has it at once.
pub const SLOW_START: Limit<Duration> = limit(seconds(0), seconds(0), hours(1));
/// `origins.<name>.health.interval`: between two checks of an endpoint.
pub const CHECK_INTERVAL: Limit<Duration> = limit(seconds(5), ms(100), hours(1));
/// `origins.<name>.health.timeout`: for connecting and the head of the answer.
pub const CHECK_TIMEOUT: Limit<Duration> = limit(seconds(2), ms(10), seconds(60));
/// `origins.<name>.health.healthy_after`: checks in a row that have to succeed.
pub const HEALTHY_AFTER: Limit<u32> = limit(1, 1, 100);
/// `origins.<name>.health.unhealthy_after`: checks in a row that have to fail.
pub const UNHEALTHY_AFTER: Limit<u32> = limit(3, 1, 100);
/// `origins.<name>.ejection.consecutive_errors`: requests in a row that fail; 0 = they do not eject.
pub const CONSECUTIVE_ERRORS: Limit<u32> = limit(5, 0, 10_000);
/// `origins.<name>.ejection.time`: of the first ejection; each further one is longer by as much.
pub const EJECTION_TIME: Limit<Duration> = limit(seconds(10), ms(10), hours(1));
/// `origins.<name>.ejection.time_max`: of any ejection.
pub const EJECTION_TIME_MAX: Limit<Duration> = limit(seconds(300), ms(10), hours(24));
/// `origins.<name>.ejection.share_max`: percentage of an origin's endpoints; of several, one may always be; 0 = none.
pub const EJECTION_SHARE_MAX: Limit<u32> = limit(50, 0, 100);
/// `origins.<name>.ejection.interval`: over which success rates are compared.
pub const EJECTION_INTERVAL: Limit<Duration> = limit(seconds(10), ms(100), hours(1));
/// `origins.<name>.deadline`: from the beginning of a forward to the head of the response, over all attempts; absent = none.
pub const DEADLINE: Limit<Duration> = limit(seconds(60), ms(1), seconds(600));
/// `origins.<name>.requests_max`: requests that an origin is given at a time; 0 = no bound but those of its connections.
pub const REQUESTS_MAX: Limit<usize> = limit(0, 0, 1_000_000);
/// `origins.<name>.retries.max`: further endpoints that a request may go to.
pub const RETRIES_MAX: Limit<usize> = limit(3, 0, 10);
/// `origins.<name>.retries.budget`: percentage of the requests that may be repeated.
pub const RETRY_BUDGET: Limit<u32> = limit(20, 0, 100);
/// `origins.<name>.retries.try_timeout`: for the head of the response, of every attempt that can be followed by another.
pub const TRY_TIMEOUT: Limit<Duration> = limit(seconds(60), ms(1), seconds(600));
/// `origins.<name>.retries.hedge_percentile`; absent = no hedging.
pub const HEDGE_PERCENTILE: Limit<u32> = limit(95, 50, 99);
/// `origins.<name>.endpoints[…].priority`: a higher one is used when no lower one is in order.
pub const PRIORITY: Limit<u32> = limit(0, 0, 9);
/// `origins.<name>.endpoints[…].weight`.
pub const WEIGHT: Limit<u32> = limit(1, 1, 1_000);
/// Endpoints of one origin.
pub const ENDPOINTS_MAX: usize = 256;

// [[sites]] and [[sites.routes]]

/// Sites of one file.
pub const SITES_MAX: usize = 10_000;
/// Routes of one site.
pub const ROUTES_MAX: usize = 1_000;
/// Bytes of a route's path.
pub const ROUTE_PATH_BYTES_MAX: usize = 1_024;
/// Letters of a name: an origin's, a site's, a plugin's.
pub const NAME_BYTES_MAX: usize = 64;
/// `stale_while_revalidate`, `stale_if_error`, `heuristic_max` and `freshness_max` of a route. The default is that of
/// `heuristic_max` (RFC 9111 §4.2.2 leaves it open); the others are off when absent.
pub const FRESHNESS: Limit<Duration> = limit(hours(24), ms(0), hours(24 * 366));
/// Members of a route's `surrogate_key_fields`.
pub const KEY_FIELDS_MAX: usize = 8;
/// Members of a route's `surrogate_keys`, and of each list of its `writes`.
pub const TEMPLATES_MAX: usize = 32;
/// Bytes of one of them.
pub const TEMPLATE_BYTES_MAX: usize = 1_024;
/// `tag_content_max` of a route: bytes of a content that are read for surrogate keys. They are held in memory while it arrives.
pub const TAG_CONTENT_MAX: Limit<u64> = limit(1 << 20, 1, 16 << 20);
/// Bytes of a JSON pointer.
pub const POINTER_BYTES_MAX: usize = 256;
/// `items.paging` of a route, where it is absent.
pub const PAGING_PARAMETERS: [&str; 6] = ["page", "per_page", "page_size", "limit", "offset", "cursor"];
/// Members of `items.paging`.
pub const PAGING_PARAMETERS_MAX: usize = 32;
/// Members of a route's `targeted_fields`.
pub const TARGETED_FIELDS_MAX: usize = 8;

const _: () = assert!(OBJECT_MAX.default <= DISK_MAX.default, "the longest content fits the store");

#[cfg(test)]
mod tests {
    use super::*;

    const DURATIONS: [Limit<Duration>; 11] = [
        HANDSHAKE_TIMEOUT,
        HEADER_TIMEOUT,
        IDLE_TIMEOUT,
        BODY_IDLE_TIMEOUT,
        DRAIN_TIMEOUT,
        KEY_DEADLINE,
        CONNECT_TIMEOUT,
        RESPONSE_TIMEOUT,
        ORIGIN_IDLE_TIMEOUT,
        QUEUE_TIMEOUT,
        FRESHNESS,
    ];
    const SIZES: [Limit<u64>; 6] =
        [HEAD_BYTES_MAX, DISK_MAX, MEMORY_MAX, OBJECT_MAX, PLUGIN_MEMORY_MAX, COMPONENT_BYTES_MAX];
    const COUNTS: [Limit<usize>; 5] = [THREADS, CONNECTIONS_MAX, HEADER_COUNT_MAX, ORIGIN_CONNECTIONS_MAX, QUEUE_MAX];

    fn assert_default_within_bounds<T: Copy + PartialOrd + std::fmt::Debug>(limits: &[Limit<T>]) {
        for limit in limits {
            assert!(limit.min <= limit.default && limit.default <= limit.max, "{limit:?}");
        }
    }

    #[test]
    fn defaults_lie_within_their_bounds() {
        assert_default_within_bounds(&DURATIONS);
        assert_default_within_bounds(&SIZES);
        assert_default_within_bounds(&COUNTS);
        assert_default_within_bounds(&[STREAMS_MAX, INSTANCES_MAX, WEIGHT]);
    }
}
