//! A query as parameters that keep the bytes the client sent.
//!
//! Always true:
//! - Parameters are separated by `&` alone. A `;` is part of a name or value: treating it as a separator here and not at the
//!   origin would let one request be keyed as another.
//! - Nothing is decoded or encoded on the way through: a parameter that is kept is the same bytes.
//! - Parameters of the same name keep their order, whatever else is sorted.

use std::borrow::Cow;

/// The parameters of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    parameters: Vec<Parameter<'a>>,
}

/// One parameter, as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    raw: &'a str,
}

impl<'a> Query<'a> {
    /// Splits a query. Empty pieces (`a=1&&b=2`, a trailing `&`) are dropped: they hold no parameter.
    #[must_use]
    pub fn parse(query: Option<&'a str>) -> Self {
        let pieces = query.unwrap_or_default().split('&').filter(|piece| !piece.is_empty());
        Self { parameters: pieces.map(|raw| Parameter { raw }).collect() }
    }

    /// Keeps the parameters for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&Parameter<'a>) -> bool) {
        self.parameters.retain(|parameter| keep(parameter));
    }

    /// Drops the parameters of these names.
    pub fn drop_named(&mut self, names: &[&str]) {
        self.retain(|parameter| {
            let name = parameter.name();
            !names.iter().any(|dropped| dropped.as_bytes() == &*name)
        });
    }

    /// Brings the parameters into an order that depends on their names alone; those of one name keep theirs.
    pub fn sort(&mut self) {
        self.parameters.sort_by_cached_key(|parameter| parameter.name().into_owned());
    }

    /// The parameters in order.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter<'a>] {
        &self.parameters
    }

    /// The parameters joined again; nothing where there is none.
    #[must_use]
    pub fn serialise(&self) -> Option<String> {
        let mut parameters = self.parameters.iter();
        let mut joined = parameters.next()?.raw.to_owned();
        for parameter in parameters {
            joined.push('&');
            joined.push_str(parameter.raw);
        }
        Some(joined)
    }
}

impl<'a> Parameter<'a> {
    /// The parameter as sent.
    #[must_use]
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// The name, decoded: `%75tm` and `utm` are the same name to an origin.
    #[must_use]
    pub fn name(&self) -> Cow<'a, [u8]> {
        decoded(self.raw.split_once('=').map_or(self.raw, |(name, _)| name))
    }

    /// The value, decoded; nothing where there is no `=`.
    #[must_use]
    pub fn value(&self) -> Option<Cow<'a, [u8]>> {
        self.raw.split_once('=').map(|(_, value)| decoded(value))
    }
}

/// Decodes `%XX` and `+`. What is not a valid escape stays as it is.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let [byte, after @ ..] = rest {
        rest = after;
        out.push(match (byte, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            _ => *byte,
        });
    }
    Cow::Owned(out)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(query: &str) -> Option<String> {
        let mut query = Query::parse(Some(query));
        query.sort();
        query.serialise()
    }

    #[test]
    fn sorting_keeps_the_order_of_parameters_with_one_name() {
        assert_eq!(sorted("b=2&a=9&b=1&a=3").as_deref(), Some("a=9&a=3&b=2&b=1"));
    }

    #[test]
    fn a_semicolon_is_no_separator() {
        let query = Query::parse(Some("a=1;utm_source=x"));
        assert_eq!(query.parameters().len(), 1);
        assert_eq!(query.parameters()[0].value().as_deref(), Some(&b"1;utm_source=x"[..]));
    }

    #[test]
    fn what_is_kept_is_not_encoded_anew() {
        for raw in ["q=%c3%BC", "q=a+b", "q=%zz", "q=%", "q", "q=", "=v", "%3d=1"] {
            assert_eq!(sorted(raw).as_deref(), Some(raw));
        }
    }

    #[test]
    fn names_are_compared_decoded() {
        let mut query = Query::parse(Some("%75tm=1&utm=2&utmost=3&UTM=4"));
        query.drop_named(&["utm"]);
        assert_eq!(query.serialise().as_deref(), Some("utmost=3&UTM=4"));
    }

    #[test]
    fn a_query_without_parameters_is_none() {
        assert_eq!(sorted(""), None);
        assert_eq!(sorted("&&"), None);
        assert_eq!(Query::parse(None).serialise(), None);
    }

    #[test]
    fn escapes_that_are_not_valid_stay() {
        assert_eq!(&*decoded("%4"), b"%4");
        assert_eq!(&*decoded("%g1%41+"), b"%g1A ");
    }
}
