//! What a token may purge.
//!
//! Always true: a purge that a token with `sites` or `key_prefixes` may make touches nothing beyond them.

use super::model::PurgeRequest;
use super::problem::Problem;
use super::selectors::parse_url;
use super::state::AdminState;
use super::tokens::Caller;

/// Fills in the only site of a caller where the request leaves the site open, and refuses what the caller may not purge. Requests that do
/// not name exactly one target are left to those who read them.
pub(super) fn permit(state: &AdminState, caller: &Caller, request: &mut PurgeRequest) -> Result<(), Problem> {
    if !caller.key_prefixes.is_empty() {
        let Some(keys) = &request.surrogate_keys else {
            let detail = format!(
                "the token may purge only surrogate keys that begin with {}, and nothing else",
                quoted(&caller.key_prefixes)
            );
            return Err(Problem::forbidden(detail));
        };
        let is_open = |key: &&String| !caller.key_prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()));
        if let Some(key) = keys.iter().find(is_open) {
            let prefixes = quoted(&caller.key_prefixes);
            let detail =
                format!("the token may purge only surrogate keys that begin with {prefixes}; {key:?} does not");
            return Err(Problem::forbidden(detail));
        }
    }
    if caller.sites.is_empty() {
        return Ok(());
    }
    if request.everything.is_some() {
        let detail = format!("the token may purge only the sites {}, not everything", quoted(&caller.sites));
        return Err(Problem::forbidden(detail));
    }
    for (field, url) in [("url", &request.url), ("prefix", &request.prefix)] {
        let Some(url) = url else { continue };
        let authority = parse_url(field, url)?.authority;
        let site = (state.site_of)(&authority);
        if !site.as_ref().is_some_and(|site| caller.sites.contains(site)) {
            let site = site.map_or("to no site".to_owned(), |site| format!("to the site {site:?}"));
            let detail = format!(
                "the token may purge only the sites {}; {authority} of `{field}` belongs {site}",
                quoted(&caller.sites)
            );
            return Err(Problem::forbidden(detail));
        }
    }
    if let Some(predicate) = &mut request.predicate {
        own(caller, &mut predicate.site, "match.site")?;
    }
    if request.surrogate_keys.is_some() || request.site.is_some() {
        own(caller, &mut request.site, "site")?;
    }
    Ok(())
}

/// The site is one of the caller's, or becomes his only one.
fn own(caller: &Caller, site: &mut Option<String>, field: &str) -> Result<(), Problem> {
    match (&*site, caller.sites.as_slice()) {
        (Some(site), sites) if sites.contains(site) => Ok(()),
        (None, [only]) => {
            *site = Some(only.clone());
            Ok(())
        }
        (Some(site), sites) => {
            let detail = format!("the token may purge only the sites {}; `{field}` is {site:?}", quoted(sites));
            Err(Problem::forbidden(detail))
        }
        (None, sites) => {
            let detail = format!("the token may purge only the sites {}: say which with `{field}`", quoted(sites));
            Err(Problem::forbidden(detail))
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}
