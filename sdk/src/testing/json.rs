//! Values at JSON pointers as the node finds them, so that tests of a rule need no node. A test of the node holds it to that.

use crate::{Content, Value, Values};

/// Nesting that the node reads.
const LEVELS_MAX: usize = 127;
const POINTERS_MAX: usize = 16;
const POINTER_BYTES_MAX: usize = 256;
const VALUES_MAX: usize = 10_000;
const TEXT_BYTES_MAX: usize = 1024;
const TEXTS_BYTES_MAX: usize = 1024 * 1024;

/// The values at `pointers` of a content, as the node finds them.
///
/// # Panics
/// Where a pointer is none (RFC 6901): the node refuses a plugin that declares it.
#[must_use]
pub fn select(content: &[u8], pointers: &[String]) -> Content {
    assert!(pointers.len() <= POINTERS_MAX, "a rule reads at most {POINTERS_MAX} places of a content");
    if pointers.is_empty() {
        return Content::Undeclared;
    }
    if content.is_empty() {
        return Content::Empty;
    }
    let Ok(text) = core::str::from_utf8(content) else { return Content::NotJson };
    let mut reader = Reader {
        rest: text,
        pointers: pointers.iter().map(|pointer| segments(pointer)).collect(),
        found: vec![Vec::new(); pointers.len()],
        values_count: 0,
        texts_bytes: 0,
    };
    let all: Vec<usize> = (0..pointers.len()).collect();
    match reader.value(&all, 0).and_then(|()| reader.end()) {
        Ok(()) => Content::Values(Values { places: pointers.iter().cloned().zip(reader.found).collect() }),
        Err(Stop::NotJson) => Content::NotJson,
        Err(Stop::TooLong) => Content::TooLong,
    }
}

fn segments(pointer: &str) -> Vec<String> {
    assert!(pointer.len() <= POINTER_BYTES_MAX, "a JSON pointer has at most {POINTER_BYTES_MAX} bytes: `{pointer}`");
    let is_escaped = pointer.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    assert!(is_escaped, "in a JSON pointer `~` stands before 0 or 1 only: `{pointer}`");
    let unescaped = |segment: &str| segment.replace("~1", "/").replace("~0", "~");
    match pointer.strip_prefix('/') {
        Some(rest) => rest.split('/').map(unescaped).collect(),
        None if pointer.is_empty() => Vec::new(),
        None => panic!("a JSON pointer is empty or begins with `/`: `{pointer}`"),
    }
}

/// Why reading ends early.
enum Stop {
    NotJson,
    TooLong,
}

struct Reader<'a> {
    rest: &'a str,
    pointers: Vec<Vec<String>>,
    found: Vec<Vec<Value>>,
    values_count: usize,
    texts_bytes: usize,
}

impl Reader<'_> {
    /// Reads a value at `level`, to which the segments so far of the pointers `here` lead.
    fn value(&mut self, here: &[usize], level: usize) -> Result<(), Stop> {
        self.skip_space();
        let value = match self.rest.as_bytes().first() {
            Some(b'{') => return self.object(here, level),
            Some(b'[') => return self.array(here, level),
            Some(b'"') => Value::Text(self.text()?),
            Some(b't') => self.word("true", Value::Flag(true))?,
            Some(b'f') => self.word("false", Value::Flag(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            _ => self.number()?,
        };
        let bytes = value.as_text().map_or(0, str::len);
        for &pointer in here.iter().filter(|&&pointer| self.pointers[pointer].len() == level) {
            self.values_count += 1;
            self.texts_bytes += bytes;
            if self.values_count > VALUES_MAX || self.texts_bytes > TEXTS_BYTES_MAX || bytes > TEXT_BYTES_MAX {
                return Err(Stop::TooLong);
            }
            self.found[pointer].push(value.clone());
        }
        Ok(())
    }

    /// Of the pointers `here`, those that lead on from `level` through a segment.
    fn leading_on(&self, here: &[usize], level: usize, through: impl Fn(&str) -> bool) -> Vec<usize> {
        let leads_on = |pointer: usize| self.pointers[pointer].get(level).is_some_and(|segment| through(segment));
        here.iter().copied().filter(|&pointer| leads_on(pointer)).collect()
    }

    fn object(&mut self, here: &[usize], level: usize) -> Result<(), Stop> {
        self.enter(level)?;
        if self.takes('}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            let name = self.text()?;
            if !self.takes(':') {
                return Err(Stop::NotJson);
            }
            let on = self.leading_on(here, level, |segment| segment == name);
            self.value(&on, level + 1)?;
            if self.takes('}') {
                return Ok(());
            }
            if !self.takes(',') {
                return Err(Stop::NotJson);
            }
        }
    }

    fn array(&mut self, here: &[usize], level: usize) -> Result<(), Stop> {
        self.enter(level)?;
        if self.takes(']') {
            return Ok(());
        }
        for index in 0_usize.. {
            let place = index.to_string();
            let on = self.leading_on(here, level, |segment| segment == "*" || segment == place);
            let each = self.leading_on(here, level, |segment| segment == "*");
            let before: Vec<usize> = each.iter().map(|&pointer| self.found[pointer].len()).collect();
            self.value(&on, level + 1)?;
            for (&pointer, before) in each.iter().zip(before) {
                if self.found[pointer].len() == before {
                    self.values_count += 1;
                    self.found[pointer].push(Value::Null);
                }
            }
            if self.values_count > VALUES_MAX {
                return Err(Stop::TooLong);
            }
            if self.takes(']') {
                break;
            }
            if !self.takes(',') {
                return Err(Stop::NotJson);
            }
        }
        Ok(())
    }

    /// Takes the opening bracket of a container.
    fn enter(&mut self, level: usize) -> Result<(), Stop> {
        self.rest = &self.rest[1..];
        if level < LEVELS_MAX { Ok(()) } else { Err(Stop::NotJson) }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Whether this comes next; it is then taken.
    fn takes(&mut self, mark: char) -> bool {
        self.skip_space();
        let after = self.rest.strip_prefix(mark);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn end(&mut self) -> Result<(), Stop> {
        self.skip_space();
        if self.rest.is_empty() { Ok(()) } else { Err(Stop::NotJson) }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, Stop> {
        self.rest = self.rest.strip_prefix(word).ok_or(Stop::NotJson)?;
        Ok(value)
    }

    fn number(&mut self) -> Result<Value, Stop> {
        let bytes = self.rest.as_bytes();
        let digits_from = |start: usize| bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut end = usize::from(bytes.first() == Some(&b'-'));
        let whole = digits_from(end);
        if whole == 0 || (whole > 1 && bytes[end] == b'0') {
            return Err(Stop::NotJson);
        }
        end += whole;
        let is_integer = !matches!(bytes.get(end), Some(b'.' | b'e' | b'E'));
        if bytes.get(end) == Some(&b'.') {
            let fraction = digits_from(end + 1);
            if fraction == 0 {
                return Err(Stop::NotJson);
            }
            end += 1 + fraction;
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits_from(end + 1 + sign);
            if exponent == 0 {
                return Err(Stop::NotJson);
            }
            end += 1 + sign + exponent;
        }
        let (number, rest) = self.rest.split_at(end);
        self.rest = rest;
        match number.parse() {
            Ok(integer) if is_integer && number != "-0" => Ok(Value::Integer(integer)),
            _ => match number.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Value::Number(number)),
                _ => Err(Stop::NotJson),
            },
        }
    }

    fn text(&mut self) -> Result<String, Stop> {
        let mut rest = self.rest.strip_prefix('"').ok_or(Stop::NotJson)?.chars();
        let mut text = String::new();
        loop {
            match rest.next() {
                Some('"') => break,
                Some('\\') => text.push(escaped(&mut rest).ok_or(Stop::NotJson)?),
                Some(letter) if letter >= ' ' => text.push(letter),
                _ => return Err(Stop::NotJson),
            }
        }
        self.rest = rest.as_str();
        Ok(text)
    }
}

/// What stands for the escape after a `\`.
fn escaped(rest: &mut core::str::Chars<'_>) -> Option<char> {
    Some(match rest.next()? {
        letter @ ('"' | '\\' | '/') => letter,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => match code_unit(rest)? {
            high @ 0xD800..0xDC00 => {
                if (rest.next()?, rest.next()?) != ('\\', 'u') {
                    return None;
                }
                let low = code_unit(rest).filter(|low| (0xDC00..0xE000).contains(low))?;
                char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00))?
            }
            unit => char::from_u32(unit)?,
        },
        _ => return None,
    })
}

fn code_unit(rest: &mut core::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |unit, _| Some(unit << 4 | rest.next()?.to_digit(16)?))
}
