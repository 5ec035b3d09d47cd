//! The query of a request, decoded as a form is.

use percent_encoding::percent_decode_str;

/// Further parameters are ignored: no route of the origin has as many.
const PARAMETERS_MAX: usize = 64;

/// Names and values in the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let parameters = query.unwrap_or_default().split('&').filter(|part| !part.is_empty()).take(PARAMETERS_MAX);
        Self(
            parameters
                .map(|part| {
                    let (name, value) = part.split_once('=').unwrap_or((part, ""));
                    (decoded(name), decoded(value))
                })
                .collect(),
        )
    }

    /// The first value of this name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The first value of this name as a number; `None` in the inner place when it is not one.
    pub(super) fn number(&self, name: &str) -> Option<Option<usize>> {
        self.get(name).map(|value| value.parse().ok())
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_the_first_of_a_name_counts() {
        let query = Query::parse(Some("q=gr%C3%BCn+tee&&page=2&flag&q=other&limit=x"));
        assert_eq!(query.get("q"), Some("grün tee"));
        assert_eq!(query.get("flag"), Some(""));
        assert_eq!(query.number("page"), Some(Some(2)));
        assert_eq!(query.number("limit"), Some(None));
        assert_eq!(query.number("offset"), None);
    }

    #[test]
    fn parameters_beyond_the_limit_are_ignored() {
        let text = format!("{}last=1", "a=1&".repeat(PARAMETERS_MAX));
        assert_eq!(Query::parse(Some(&text)).get("last"), None);
    }
}
