//! Which resource a path names, which methods it knows, and how long it lets the client wait.

use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::DemoOptions;
use super::body::OriginBody;
use super::catalogue::Catalogue;
use super::query::Query;
use super::respond::Answer;
use super::{pages, probes, products};

/// A longer wait is refused: it would only hold a connection.
const SLOW_MS_MAX: u64 = 60_000;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Index,
    Products,
    Product(u32),
    Search,
    SalesReport,
    Me,
    TenantCatalogue,
    Home,
    Bytes(u64),
    Slow(Duration),
    Status(StatusCode),
    Headers,
    Echo,
    Trailers,
    Unknown,
    /// The path names a resource with an argument that it cannot have.
    Malformed(&'static str),
}

impl Route {
    fn of(path: &str) -> Self {
        let mut segments = path.trim_start_matches('/').split('/');
        match (segments.next().unwrap_or_default(), segments.next(), segments.next()) {
            ("", None, None) => Self::Index,
            ("products", None, None) => Self::Products,
            ("products", Some(id), None) => id.parse().map_or(Self::Unknown, Self::Product),
            ("search", None, None) => Self::Search,
            ("reports", Some("sales"), None) => Self::SalesReport,
            ("me", None, None) => Self::Me,
            ("catalogue", None, None) => Self::TenantCatalogue,
            ("home", None, None) => Self::Home,
            ("bytes", Some(length), None) => match length.parse() {
                Ok(length) if length <= probes::BYTES_MAX => Self::Bytes(length),
                Ok(_) | Err(_) => Self::Malformed("/bytes/{n} with n from 0 to 4294967296"),
            },
            ("slow", Some(wait_ms), None) => match wait_ms.parse() {
                Ok(wait_ms) if wait_ms <= SLOW_MS_MAX => Self::Slow(Duration::from_millis(wait_ms)),
                Ok(_) | Err(_) => Self::Malformed("/slow/{ms} with ms from 0 to 60000"),
            },
            ("status", Some(code), None) => match code.parse().map(StatusCode::from_u16) {
                Ok(Ok(status)) if (200..600).contains(&status.as_u16()) => Self::Status(status),
                Ok(_) | Err(_) => Self::Malformed("/status/{code} with code from 200 to 599"),
            },
            ("headers", None, None) => Self::Headers,
            ("echo", None, None) => Self::Echo,
            ("trailers", None, None) => Self::Trailers,
            _ => Self::Unknown,
        }
    }

    fn knows(self, method: &Method) -> Result<(), &'static str> {
        let (known, allowed) = match self {
            // These say themselves which methods they know, or answer everything alike.
            Self::Products
            | Self::Product(_)
            | Self::Status(_)
            | Self::Headers
            | Self::Unknown
            | Self::Malformed(_) => (true, ""),
            Self::Echo => (matches!(*method, Method::POST | Method::PUT), "POST, PUT"),
            Self::Index
            | Self::Search
            | Self::SalesReport
            | Self::Me
            | Self::TenantCatalogue
            | Self::Home
            | Self::Bytes(_)
            | Self::Slow(_)
            | Self::Trailers => (matches!(*method, Method::GET | Method::HEAD), "GET, HEAD"),
        };
        if known { Ok(()) } else { Err(allowed) }
    }

    fn wait(self, options: &DemoOptions) -> Duration {
        match self {
            Self::Slow(wait) => wait,
            Self::SalesReport => options.report_delay,
            _ => options.delay,
        }
    }
}

/// Answers one request, after the wait that its resource has.
pub(super) async fn answer(
    catalogue: &Catalogue,
    options: &DemoOptions,
    request: Request<Incoming>,
) -> Response<OriginBody> {
    let (head, content) = request.into_parts();
    let route = Route::of(head.uri.path());
    let wait = route.wait(options);
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let query = Query::parse(head.uri.query());
    let answer = match (route.knows(&head.method), route) {
        (Err(allowed), _) => Answer::method_not_allowed(allowed),
        (Ok(()), Route::Index) => pages::index(),
        (Ok(()), Route::Products) => products::list(catalogue, &head.method, &query, &head.headers, content).await,
        (Ok(()), Route::Product(id)) => products::product(catalogue, id, &head.method, &head.headers, content).await,
        (Ok(()), Route::Search) => products::search(catalogue, &query, &head.headers),
        (Ok(()), Route::SalesReport) => pages::sales_report(catalogue),
        (Ok(()), Route::Me) => pages::me(&head.headers),
        (Ok(()), Route::TenantCatalogue) => pages::tenant_catalogue(catalogue, &head.headers),
        (Ok(()), Route::Home) => pages::home(&head.headers),
        (Ok(()), Route::Bytes(length)) => probes::bytes(length, &query),
        (Ok(()), Route::Slow(wait)) => Answer::content("text/plain", format!("{} ms later\n", wait.as_millis()))
            .cache_control("public, max-age=60"),
        (Ok(()), Route::Status(status)) => probes::status(status, &query),
        (Ok(()), Route::Headers) => probes::headers(&head),
        (Ok(()), Route::Echo) => probes::echo(&head.headers, content),
        (Ok(()), Route::Trailers) => probes::trailers(),
        (Ok(()), Route::Unknown) => Answer::error(StatusCode::NOT_FOUND, "no such resource; / lists them"),
        (Ok(()), Route::Malformed(usage)) => Answer::error(StatusCode::BAD_REQUEST, usage),
    };
    answer.into_response(&head.method, &head.headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_resources() {
        for (path, expected) in [
            ("/", Route::Index),
            ("/products", Route::Products),
            ("/products/42", Route::Product(42)),
            ("/products/forty", Route::Unknown),
            ("/products/42/reviews", Route::Unknown),
            ("/reports/sales", Route::SalesReport),
            ("/bytes/4294967296", Route::Bytes(1 << 32)),
            ("/slow/5", Route::Slow(Duration::from_millis(5))),
            ("/status/418", Route::Status(StatusCode::IM_A_TEAPOT)),
            ("/nothing", Route::Unknown),
        ] {
            assert_eq!(Route::of(path), expected, "{path}");
        }
        for path in
            ["/bytes/4294967297", "/bytes/x", "/slow/60001", "/slow/", "/status/99", "/status/101", "/status/600"]
        {
            assert!(matches!(Route::of(path), Route::Malformed(_)), "{path}");
        }
    }

    #[test]
    fn the_report_and_the_slow_resource_have_waits_of_their_own() {
        let options = DemoOptions::default();
        assert_eq!(Route::Products.wait(&options), options.delay);
        assert_eq!(Route::SalesReport.wait(&options), options.report_delay);
        assert_eq!(Route::of("/slow/7").wait(&options), Duration::from_millis(7));
    }
}
