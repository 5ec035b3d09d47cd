//! The OpenAPI document, put together from the calls themselves and the types they take and answer.

use std::sync::OnceLock;

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{explain_calls, node_calls, origin_calls, plugin_calls, purge_calls, retry_calls, token_calls};

#[derive(OpenApi)]
#[openapi(
    info(title = "Brim admin API", description = "Purges, plugins, explanations and the state of one Brim node. Every call below /v1/ needs a token with the right scope."),
    paths(
        node_calls::healthz,
        node_calls::readyz,
        node_calls::metrics,
        node_calls::openapi,
        node_calls::status,
        node_calls::reload,
        explain_calls::explain,
        origin_calls::list,
        origin_calls::drain,
        purge_calls::purge,
        purge_calls::list,
        purge_calls::receipt,
        plugin_calls::list,
        plugin_calls::show,
        plugin_calls::upload,
        plugin_calls::activate,
        plugin_calls::rollback,
        token_calls::make,
        token_calls::list,
        token_calls::revoke,
        token_calls::audit,
        retry_calls::list,
        retry_calls::give_up,
    ),
    modifiers(&Token),
)]
struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The admin token is in the node's token file; POST /v1/tokens makes others."))
            .build();
        document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
        document.info.version = env!("CARGO_PKG_VERSION").to_owned();
        document.info.license = None;
        document.info.contact = None;
    }
}

/// The document as JSON text.
pub fn document() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        Document::openapi().to_pretty_json().unwrap_or_else(|error| format!("{{\"error\": {:?}}}", error.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::admin::calls::CALLS;

    #[test]
    fn the_document_describes_exactly_the_calls_there_are() {
        let document: serde_json::Value = serde_json::from_str(document()).expect("the document is JSON");
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for method in item.as_object().expect("methods").keys() {
                described.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
        let calls = CALLS.iter().filter(|(method, _, _)| *method != "HEAD");
        let calls: BTreeSet<String> = calls.map(|(method, path, _)| format!("{method} {path}")).collect();
        assert_eq!(described, calls);
    }

    /// A reference to a schema that is not in the document would make every generated client fail.
    #[test]
    fn every_reference_resolves() {
        let text = document();
        let document: serde_json::Value = serde_json::from_str(text).expect("the document is JSON");
        for reference in text.split("\"$ref\": \"#/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(&format!("/{reference}")).is_some(), "{reference}");
        }
    }
}
