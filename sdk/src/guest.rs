//! The exported side of a rule: turns the bindings' types into the SDK's and back.
//!
//! Always true:
//! - The panic hook is set before a rule runs, since each call has a fresh instance.

use core::marker::PhantomData;

use crate::bindings::brim::rules::{log, types};
use crate::bindings::exports::brim::rules::{cache_key, meta};
use crate::{CacheKeyRule, PartValue, QueryInputs, QueryUse, Request};

/// A rule as the component exports it. Named by the `#[plugin]` attribute only.
#[derive(Debug)]
pub struct Exported<R>(PhantomData<R>);

impl<R: CacheKeyRule> meta::Guest for Exported<R> {
    fn describe() -> meta::Description {
        report_panics();
        let description = R::describe();
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
}

impl<R: CacheKeyRule> cache_key::Guest for Exported<R> {
    fn key(request: cache_key::Request) -> Result<cache_key::Decision, cache_key::Failure> {
        report_panics();
        let request = Request {
            method: request.method,
            scheme: request.scheme,
            authority: request.authority,
            path: request.path,
            query: request.query,
            headers: request.headers.into_iter().map(|field| (field.name, field.value)).collect(),
            cookies: request.cookies.into_iter().map(|cookie| (cookie.name, cookie.value)).collect(),
        };
        match R::key(&request) {
            Ok(decision) => Ok(cache_key::Decision {
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
            }),
            Err(failure) => Err(types::Failure { message: failure.message, extras: Vec::new() }),
        }
    }
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
