//! What is left to say of a response's length once its framing has been undone (RFC 9112 §6.3).
//!
//! Always true:
//! - A response that had a transfer coding has no `Content-Length`: the two may contradict one another, and the coding counted.
//! - Any other response has at most one line of it, with one number.
//!
//! Not here: reading the content, which hyper does; it has refused lengths that contradict one another or are no numbers.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};

/// Makes the fields say what the framing meant.
pub(super) fn settle(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
        return;
    }
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next().map(HeaderValue::as_bytes) else { return };
    let is_one = lines.next().is_none() && first.iter().all(u8::is_ascii_digit);
    if is_one {
        return;
    }
    // RFC 9110 §8.6: the same number, in several lines or members.
    let member = first.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    if let Ok(length) = HeaderValue::from_bytes(member) {
        headers.insert(CONTENT_LENGTH, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_left_or_none() {
        for (lengths, coding, expected) in [
            (&["5"][..], None, Some("5")),
            (&["5", "5"], None, Some("5")),
            (&["5 , 5"], None, Some("5")),
            (&["5"], Some("chunked"), None),
            (&[], Some("novel"), None),
            (&[], None, None),
        ] {
            let mut headers = HeaderMap::new();
            for length in lengths {
                headers.append(CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            headers.extend(coding.map(|coding| (TRANSFER_ENCODING, HeaderValue::from_static(coding))));
            settle(&mut headers);
            let left: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(left, expected.iter().collect::<Vec<_>>(), "{lengths:?} {coding:?}");
        }
    }
}
