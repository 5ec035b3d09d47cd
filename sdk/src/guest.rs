//! The exported side of a rule: turns the bindings' types into the SDK's and back.
//!
//! Always true:
//! - The panic hook is set before a rule runs, since each call has a fresh instance.

use core::marker::PhantomData;

use crate::bindings::brim::rules::{log, types};
use crate::bindings::exports::brim::rules::{cache_key, invalidation, meta};
use crate::{
    CacheKeyRule, Content, Description, Failure, InvalidationRule, PartValue, QueryInputs, QueryUse, Request, Response,
    Value, Values,
};

/// A component with a cache-key rule, as it exports it. These types are named by the `#[plugin]` attribute only.
#[derive(Debug)]
pub struct ExportedCacheKey<R>(PhantomData<R>);

/// A component with an invalidation rule.
#[derive(Debug)]
pub struct ExportedInvalidation<R>(PhantomData<R>);

/// A component with both.
#[derive(Debug)]
pub struct ExportedEveryHook<R>(PhantomData<R>);

impl<R: CacheKeyRule> meta::Guest for ExportedCacheKey<R> {
    fn describe() -> meta::Description {
        described(R::describe)
    }
}

impl<R: InvalidationRule> meta::Guest for ExportedInvalidation<R> {
    fn describe() -> meta::Description {
        described(R::describe)
    }
}

impl<R: CacheKeyRule + InvalidationRule> meta::Guest for ExportedEveryHook<R> {
    fn describe() -> meta::Description {
        described(<R as CacheKeyRule>::describe)
    }
}

impl<R: CacheKeyRule> cache_key::Guest for ExportedCacheKey<R> {
    fn key(request: cache_key::Request) -> Result<cache_key::Decision, types::Failure> {
        key::<R>(request)
    }
}

impl<R: CacheKeyRule> cache_key::Guest for ExportedEveryHook<R> {
    fn key(request: cache_key::Request) -> Result<cache_key::Decision, types::Failure> {
        key::<R>(request)
    }
}

impl<R: InvalidationRule> invalidation::Guest for ExportedInvalidation<R> {
    fn reads() -> invalidation::Inputs {
        reads::<R>()
    }

    fn tags(request: invalidation::Request, response: invalidation::Response) -> Result<Vec<String>, types::Failure> {
        tags::<R>(request, response)
    }

    fn purges(
        request: invalidation::Request,
        response: invalidation::Response,
    ) -> Result<Vec<invalidation::Purge>, types::Failure> {
        purges::<R>(request, response)
    }
}

impl<R: InvalidationRule> invalidation::Guest for ExportedEveryHook<R> {
    fn reads() -> invalidation::Inputs {
        reads::<R>()
    }

    fn tags(request: invalidation::Request, response: invalidation::Response) -> Result<Vec<String>, types::Failure> {
        tags::<R>(request, response)
    }

    fn purges(
        request: invalidation::Request,
        response: invalidation::Response,
    ) -> Result<Vec<invalidation::Purge>, types::Failure> {
        purges::<R>(request, response)
    }
}

fn described(describe: fn() -> Description) -> meta::Description {
    report_panics();
    let description = describe();
    meta::Description {
        name: description.name,
        version: description.version,
        inputs: meta::Inputs {
            path: description.path,
            query: match description.query {
                QueryInputs::None => meta::QueryInputs::None,
                QueryInputs::All => meta::QueryInputs::All,
                QueryInputs::Named(names) => meta::QueryInputs::Named(names),
            },
            headers: description.headers,
            cookies: description.cookies,
        },
        extras: Vec::new(),
    }
}

fn key<R: CacheKeyRule>(request: cache_key::Request) -> Result<cache_key::Decision, types::Failure> {
    report_panics();
    let request = Request {
        method: request.method,
        scheme: request.scheme,
        authority: request.authority,
        path: request.path,
        query: request.query,
        headers: lines(request.headers),
        cookies: request.cookies.into_iter().map(|cookie| (cookie.name, cookie.value)).collect(),
        content: Content::Undeclared,
    };
    let decision = R::key(&request).map_err(failed)?;
    Ok(cache_key::Decision {
        query: match decision.query {
            QueryUse::Keep => cache_key::QueryUse::Keep,
            QueryUse::Replace(query) => cache_key::QueryUse::Replace(query),
        },
        parts: decision
            .parts
            .into_iter()
            .map(|(name, value)| cache_key::Part { name, value: lowered(value) })
            .collect(),
        bypass: decision.bypass,
        extras: Vec::new(),
    })
}

fn reads<R: InvalidationRule>() -> invalidation::Inputs {
    report_panics();
    let reads = R::reads();
    invalidation::Inputs {
        request_headers: reads.request_headers,
        response_headers: reads.response_headers,
        request_values: reads.request_values,
        response_values: reads.response_values,
        extras: Vec::new(),
    }
}

fn tags<R: InvalidationRule>(
    request: invalidation::Request,
    response: invalidation::Response,
) -> Result<Vec<String>, types::Failure> {
    report_panics();
    let (request, response) = exchange::<R>(request, response);
    R::tags(&request, &response).map(|tags| tags.keys).map_err(failed)
}

fn purges<R: InvalidationRule>(
    request: invalidation::Request,
    response: invalidation::Response,
) -> Result<Vec<invalidation::Purge>, types::Failure> {
    report_panics();
    let (request, response) = exchange::<R>(request, response);
    let purges = R::purges(&request, &response).map_err(failed)?;
    let keys = (!purges.keys.is_empty()).then_some(invalidation::Purge::SurrogateKeys(purges.keys));
    let site = purges.site.then_some(invalidation::Purge::Site);
    let urls = purges.urls.into_iter().map(invalidation::Purge::Url);
    let prefixes = purges.prefixes.into_iter().map(invalidation::Purge::Prefix);
    Ok(keys.into_iter().chain(urls).chain(prefixes).chain(site).collect())
}

fn exchange<R: InvalidationRule>(
    request: invalidation::Request,
    response: invalidation::Response,
) -> (Request, Response) {
    // The pointers of the values, which come in the order in which the rule declared them.
    let reads = R::reads();
    let request = Request {
        method: request.method,
        scheme: request.scheme,
        authority: request.authority,
        path: request.path,
        query: request.query,
        headers: lines(request.headers),
        cookies: Vec::new(),
        content: lifted(request.content, reads.request_values),
    };
    let response = Response {
        status: response.status,
        headers: lines(response.headers),
        content: lifted(response.content, reads.response_values),
    };
    (request, response)
}

fn lifted(content: invalidation::Content, pointers: Vec<String>) -> Content {
    let value = |value| match value {
        invalidation::Value::Null => Value::Null,
        invalidation::Value::Flag(flag) => Value::Flag(flag),
        invalidation::Value::Integer(integer) => Value::Integer(integer),
        invalidation::Value::Number(number) => Value::Number(number),
        invalidation::Value::Text(text) => Value::Text(text),
    };
    match content {
        invalidation::Content::Undeclared => Content::Undeclared,
        invalidation::Content::Empty => Content::Empty,
        invalidation::Content::TooLong => Content::TooLong,
        invalidation::Content::NotJson => Content::NotJson,
        invalidation::Content::Values(lists) => {
            let lists = lists.into_iter().map(|list| list.into_iter().map(value).collect());
            Content::Values(Values { places: pointers.into_iter().zip(lists).collect() })
        }
    }
}

fn lines(fields: Vec<types::Field>) -> Vec<(String, Vec<u8>)> {
    fields.into_iter().map(|field| (field.name, field.value)).collect()
}

fn failed(failure: Failure) -> types::Failure {
    types::Failure { message: failure.message, extras: Vec::new() }
}

fn lowered(value: PartValue) -> cache_key::PartValue {
    match value {
        PartValue::Text(text) => cache_key::PartValue::Text(text),
        PartValue::Bytes(bytes) => cache_key::PartValue::Bytes(bytes),
        PartValue::Integer(integer) => cache_key::PartValue::Integer(integer),
        PartValue::Flag(flag) => cache_key::PartValue::Flag(flag),
        PartValue::Absent => cache_key::PartValue::Absent,
    }
}

/// A trap carries no text, so the message of a panic is sent ahead of it.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| log::panicking(&panic.to_string())));
}

pub(crate) fn write_log(level: crate::log::Level, message: &str) {
    let level = match level {
        crate::log::Level::Debug => log::Level::Debug,
        crate::log::Level::Info => log::Level::Info,
        crate::log::Level::Warn => log::Level::Warn,
        crate::log::Level::Error => log::Level::Error,
    };
    log::write(level, message);
}
