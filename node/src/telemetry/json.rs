//! Writes JSON into a buffer that is used again: no tree of values, no allocation a field.
//!
//! Always true: what is written is one JSON object, whatever is in the strings.

use std::io::Write as _;

/// An object being written.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Object { out, is_empty: true }
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    pub(super) fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        self.out.push(b'"');
        escape(value, self.out);
        self.out.push(b'"');
    }

    pub(super) fn optional_text(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    pub(super) fn number(&mut self, name: &'static str, value: u64) {
        self.name(name);
        decimal(value, self.out);
    }

    pub(super) fn signed(&mut self, name: &'static str, value: i64) {
        self.name(name);
        if value < 0 {
            self.out.push(b'-');
        }
        decimal(value.unsigned_abs(), self.out);
    }

    pub(super) fn flag(&mut self, name: &'static str, value: bool) {
        self.name(name);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A value whose text needs no escaping, in quotes.
    pub(super) fn plain(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.name(name);
        self.out.push(b'"');
        write(self.out);
        self.out.push(b'"');
    }

    /// Names are ours and need no escaping.
    fn name(&mut self, name: &'static str) {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

/// RFC 8259 §7: quote, backslash and everything below U+0020.
fn escape(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            // Writing to a Vec cannot fail.
            other => drop(write!(out, "\\u{other:04x}")),
        }
    }
    out.extend_from_slice(&bytes[from..]);
}

/// A line has a dozen numbers; none of them needs what `core::fmt` does for width, sign and padding.
pub(super) fn decimal(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + digit(rest);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn digit(value: u64) -> u8 {
    u8::try_from(value % 10).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(write: impl FnOnce(&mut Object<'_>)) -> String {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        write(&mut object);
        object.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_of_any_content_read_back() {
        let every_ascii: String = (0..128_u8).map(char::from).collect();
        for text in ["", "plain", "a\"b\\c", "\u{0}\u{1f}\u{7f}", "ä€😀\u{2028}", "\r\n\t", every_ascii.as_str()] {
            let line = object(|object| object.text("t", text));
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["t"], text);
            assert!(!line.contains('\n'), "a line stays a line: {line}");
        }
    }

    #[test]
    fn numbers_flags_and_absent_values() {
        let line = object(|object| {
            object.number("zero", 0);
            object.number("most", u64::MAX);
            object.signed("least", i64::MIN);
            object.optional_text("absent", None);
            object.flag("yes", true);
        });
        assert_eq!(line, r#"{"zero":0,"most":18446744073709551615,"least":-9223372036854775808,"yes":true}"#);
        assert_eq!(object(|_| ()), "{}");
    }
}
