//! One stored response per class of device instead of one per User-Agent.
//!
//! `Vary: User-Agent` would store a copy for each of the many thousands of values in use; an origin that only tells phones from
//! tablets from the rest needs three.

use brim_sdk::{CacheKeyRule, Decision, Description, Failure, Request};

struct DeviceKey;

#[brim_sdk::plugin]
impl CacheKeyRule for DeviceKey {
    fn describe() -> Description {
        Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")).header("user-agent")
    }

    fn key(request: &Request) -> Result<Decision, Failure> {
        let agent = request.header("user-agent")?.unwrap_or_default();
        Ok(Decision::keep_query().part("device", class_of(agent)))
    }
}

/// `tablet`, `mobile` or `desktop`; what says nothing of itself is a desktop.
fn class_of(agent: &[u8]) -> &'static str {
    let agent = agent.to_ascii_lowercase();
    let says = |word: &str| agent.windows(word.len()).any(|part| part == word.as_bytes());
    // A tablet on Android is one that does not say "mobile".
    if says("ipad") || says("tablet") || says("kindle") || says("silk/") || (says("android") && !says("mobile")) {
        "tablet"
    } else if says("mobile") || says("iphone") || says("ipod") || says("opera mini") {
        "mobile"
    } else {
        "desktop"
    }
}

#[cfg(test)]
mod tests {
    use brim_sdk::testing::{MockRequest, decide};

    use super::*;

    #[test]
    fn user_agents_fold_into_three_classes() {
        for (agent, class) in [
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148", "mobile"),
            ("Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/140.0 Mobile Safari/537.36", "mobile"),
            ("Opera/9.80 (J2ME/MIDP; Opera Mini/9.80) Presto/2.5.25", "mobile"),
            ("Mozilla/5.0 (Linux; Android 15; SM-X910) AppleWebKit/537.36 Chrome/140.0 Safari/537.36", "tablet"),
            ("Mozilla/5.0 (iPad; CPU OS 16_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148", "tablet"),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "desktop"),
            ("curl/8.14.1", "desktop"),
            ("", "desktop"),
        ] {
            let decision = decide::<DeviceKey>(&MockRequest::get("/").header("user-agent", agent)).expect("a decision");
            assert_eq!(decision.part_named("device"), Some(&class.into()), "{agent}");
        }
    }

    #[test]
    fn no_user_agent_is_a_desktop() {
        let decision = decide::<DeviceKey>(&MockRequest::get("/")).expect("a decision");
        assert_eq!(decision.part_named("device"), Some(&"desktop".into()));
    }
}
