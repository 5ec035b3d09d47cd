//! Text that comes from a guest and goes to a person.

/// One line of at most `bytes_max` bytes: control characters become blanks, so that a guest cannot fake lines of a log.
pub(crate) fn clean(text: &str, bytes_max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(bytes_max));
    for character in text.trim().chars() {
        if line.len() + character.len_utf8() > bytes_max {
            break;
        }
        line.push(if character.is_control() { ' ' } else { character });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_not_faked_and_not_too_long() {
        assert_eq!(clean("a\r\nb\u{1b}[31m", 100), "a  b [31m");
        assert_eq!(clean("üü", 3), "ü");
    }
}
