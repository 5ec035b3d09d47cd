//! `brim token`.

use super::args::{ScopeArg, TokenArgs, TokenCommand};
use super::client::Client;
use super::error::CliError;
use super::print;
use crate::admin::{Scope, TokenAnswer, TokenList, TokenMade, TokenRequest};

pub(super) fn run(args: &TokenArgs) -> Result<(), CliError> {
    let client = Client::new(&args.client)?;
    let is_json = args.client.json;
    match &args.command {
        TokenCommand::New { name, scopes, sites, key_prefixes, purges_per_minute, expires_in } => {
            let request = TokenRequest {
                name: name.clone(),
                scopes: scopes.iter().copied().map(Scope::from).collect(),
                sites: sites.clone(),
                key_prefixes: key_prefixes.clone(),
                purges_per_minute: *purges_per_minute,
                expires_in: expires_in.clone(),
            };
            let made: TokenMade = client.post("/v1/tokens", &request)?;
            if is_json {
                return print::json(&made);
            }
            print::line(&made.token);
            print::line(format!("  id {}: {}", made.about.id, may(&made.about)));
            print::line("  keep it: it is shown this once, and the node does not know it");
        }
        TokenCommand::List => {
            let list: TokenList = client.get("/v1/tokens")?;
            if is_json {
                return print::json(&list);
            }
            let rows: Vec<_> = list.tokens.iter().map(row).collect();
            print::table(["ID", "NAME", "MAY", "MADE", "BY", "EXPIRES"], &rows);
        }
        TokenCommand::Revoke { id } => {
            let revoked: TokenAnswer = client.delete(&format!("/v1/tokens/{}", segment(id)?))?;
            if is_json {
                return print::json(&revoked);
            }
            print::line(format!("revoked: {} ({})", revoked.id, revoked.name));
        }
    }
    Ok(())
}

/// An id that can stand in a path.
pub(super) fn segment(id: &str) -> Result<&str, CliError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match !id.is_empty() && id.bytes().all(is_plain) && !id.starts_with('.') {
        true => Ok(id),
        false => Err(CliError::Usage(format!("{id:?} is no id"))),
    }
}

fn row(token: &TokenAnswer) -> [String; 6] {
    let expires = token.expires_at.clone().unwrap_or_else(|| "never".to_owned());
    [token.id.clone(), token.name.clone(), may(token), token.created_at.clone(), token.created_by.clone(), expires]
}

/// What a token may do, in short.
fn may(token: &TokenAnswer) -> String {
    let mut parts = vec![token.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join("+")];
    if !token.sites.is_empty() {
        parts.push(format!("sites {}", token.sites.join(" ")));
    }
    if !token.key_prefixes.is_empty() {
        parts.push(format!(
            "keys {}",
            token.key_prefixes.iter().map(|prefix| format!("{prefix}*")).collect::<Vec<_>>().join(" ")
        ));
    }
    match token.purges_per_minute {
        Some(0) => parts.push("any number of purges".to_owned()),
        Some(number) => parts.push(format!("{number} purges a minute")),
        None => {}
    }
    parts.join(", ")
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Scope {
        match scope {
            ScopeArg::Read => Scope::Read,
            ScopeArg::Purge => Scope::Purge,
            ScopeArg::Plugins => Scope::Plugins,
            ScopeArg::Admin => Scope::Admin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_token_may_do_is_said_in_short() {
        let token = TokenAnswer {
            id: "1".to_owned(),
            name: "ci".to_owned(),
            scopes: vec![Scope::Read, Scope::Purge],
            sites: vec!["shop".to_owned(), "api".to_owned()],
            key_prefixes: vec!["p:".to_owned()],
            purges_per_minute: Some(10),
            created_at: String::new(),
            created_by: "admin".to_owned(),
            expires_at: None,
        };
        assert_eq!(may(&token), "read+purge, sites shop api, keys p:*, 10 purges a minute");
        assert_eq!(row(&token)[5], "never");
        assert!(segment("p-1").is_ok());
        for wrong in ["", "a/b", "..", "a?b", "é", "a%20"] {
            assert!(segment(wrong).is_err(), "{wrong}");
        }
    }
}
