//! Which of the two languages a request prefers (RFC 9110 §12.5.4).

use http::HeaderMap;
use http::header::ACCEPT_LANGUAGE;

/// The languages of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    English,
    German,
}

impl Language {
    /// The language with the highest weight; English when they weigh the same or nothing is asked for.
    pub(super) fn preferred(headers: &HeaderMap) -> Self {
        let mut english = Weight::default();
        let mut german = Weight::default();
        for value in headers.get_all(ACCEPT_LANGUAGE) {
            for range in value.to_str().unwrap_or_default().split(',') {
                let mut parts = range.split(';').map(str::trim);
                let tag = parts.next().unwrap_or_default().to_ascii_lowercase();
                let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
                match tag.split('-').next() {
                    Some("en") => english.named(weight),
                    Some("de") => german.named(weight),
                    Some("*") => {
                        english.any(weight);
                        german.any(weight);
                    }
                    Some(_) | None => {}
                }
            }
        }
        if german.thousandths() > english.thousandths() { Self::German } else { Self::English }
    }

    pub(super) const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }
}

/// What the client said of one language. A language that is named is not covered by `*` (RFC 4647 §3.3.1).
#[derive(Default)]
struct Weight {
    named: Option<u16>,
    any: Option<u16>,
}

impl Weight {
    fn named(&mut self, weight: u16) {
        self.named = Some(self.named.map_or(weight, |other| other.max(weight)));
    }

    fn any(&mut self, weight: u16) {
        self.any = Some(weight);
    }

    fn thousandths(&self) -> u16 {
        self.named.or(self.any).unwrap_or(0)
    }
}

/// `0.8` as 800. What is not a weight counts as none.
fn thousandths(weight: &str) -> u16 {
    let Some((whole, fraction)) = weight.split_once('.') else {
        return if weight == "1" { 1000 } else { 0 };
    };
    if whole == "1" {
        return 1000;
    }
    format!("{fraction:0<3}").get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_with_the_highest_weight_is_chosen() {
        for (accept, expected) in [
            ("", "en"),
            ("de", "de"),
            ("de-AT, en;q=0.8", "de"),
            ("en, de", "en"),
            ("de;q=0.5, en;q=0.75", "en"),
            ("en;q=0.1, *", "de"),
            ("*;q=0.5, de;q=0", "en"),
            ("fr, ja", "en"),
            ("de;q=rubbish", "en"),
            ("de;q=0.001, en;q=0", "de"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_LANGUAGE, accept.parse().expect("a field value"));
            assert_eq!(Language::preferred(&headers).tag(), expected, "{accept}");
        }
    }
}
