//! Reads a parsed TOML table key by key and reports what does not fit, without stopping at the first mistake.
//!
//! Always true:
//! - A getter that meets a mistake reports it and gives the default, so that reading goes on; whoever assembles the
//!   result may use it only when nothing was reported (`error::Sink::finish`).
//! - A key is known because a getter asked for it. [`Section::finish`] reports every other key, with the nearest known one.
//!
//! Why not `#[derive(Deserialize)]`: serde stops at the first mistake of a section and knows neither ranges nor lines.
//!
//! Not here: which keys there are (the section's own file), the ranges (`limits`).

use std::cell::RefCell;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Sink;
use super::limits::Limit;
use super::{Context, suggest, units};

/// One table of the file, or its absence: then every getter gives the default.
pub(super) struct Section<'a> {
    context: &'a Context<'a>,
    pub(super) path: String,
    line: Option<usize>,
    table: Option<&'a DeTable<'a>>,
    known: RefCell<Vec<&'static str>>,
}

/// One value of the file with its key path.
pub(super) struct Value<'a> {
    context: &'a Context<'a>,
    pub(super) path: String,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(context: &'a Context<'a>, table: &'a DeTable<'a>) -> Self {
        Section { context, path: String::new(), line: None, table: Some(table), known: RefCell::default() }
    }

    /// The key path of `key` in this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Reports a mistake of `key`, at its line where it is present.
    pub(super) fn report(&self, key: &str, message: impl Into<String>) {
        let line = self.table.and_then(|table| table.get(key)).map(|value| self.context.line(value.span().start));
        self.sink().report(self.path_of(key), line.or(self.line), message);
    }

    /// The value of `key`, if it is there. Makes the key known.
    pub(super) fn value(&self, key: &'static str) -> Option<Value<'a>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        let value = self.table?.get(key)?;
        Some(Value { context: self.context, path: self.path_of(key), value })
    }

    /// The table under `key`; absent and mistaken ones read as empty.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        let table = self.value(key).and_then(|value| value.section());
        table.unwrap_or_else(|| Section {
            context: self.context,
            path: self.path_of(key),
            line: self.line,
            table: None,
            known: RefCell::default(),
        })
    }

    /// What `read` gives for `key`; an absent key is reported.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Self, &'static str) -> Option<T>,
    ) -> Option<T> {
        if self.table.is_some_and(|table| !table.contains_key(key)) {
            self.report(key, "is missing");
        }
        read(self, key)
    }

    /// The members of an array that needs at least one; `needs` says of what.
    pub(super) fn required_list(&self, key: &'static str, needs: &str) -> Option<Vec<Value<'a>>> {
        let list = match self.value(key) {
            Some(value) => value.list()?,
            None => Vec::new(),
        };
        if list.is_empty() {
            self.report(key, format!("needs {needs}"));
            return None;
        }
        Some(list)
    }

    /// The members of an array; none if it is absent.
    pub(super) fn list(&self, key: &'static str) -> Vec<Value<'a>> {
        self.value(key).and_then(|value| value.list()).unwrap_or_default()
    }

    /// All entries, for tables whose keys are names chosen by the user (`[origins.<name>]`). Makes all of them known.
    pub(super) fn entries(&self) -> Vec<(&'a str, Value<'a>)> {
        let entries = self.table.into_iter().flatten();
        let value = |(name, value): (&'a Spanned<_>, _)| {
            let name: &'a std::borrow::Cow<'a, str> = name.get_ref();
            (name.as_ref(), Value { context: self.context, path: self.path_of(name), value })
        };
        entries.map(value).collect()
    }

    pub(super) fn text(&self, key: &'static str) -> Option<&'a str> {
        self.value(key)?.text()
    }

    /// A file or directory; a relative one counts from the directory of the configuration file.
    pub(super) fn file(&self, key: &'static str) -> Option<PathBuf> {
        let value = self.value(key)?;
        match value.text()? {
            "" => value.fail("is empty"),
            text => Some(self.context.path(text)),
        }
    }

    /// The same, for a file that has to be there when the node starts.
    pub(super) fn present_file(&self, key: &'static str) -> Option<PathBuf> {
        let path = self.file(key)?;
        if self.context.look_at_files && !path.is_file() {
            self.report(key, format!("there is no file {}", path.display()));
        }
        Some(path)
    }

    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        let flag = self.value(key).and_then(|value| match value.value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => value.wrong_type("true or false"),
        });
        flag.unwrap_or(default)
    }

    pub(super) fn duration(&self, key: &'static str, limit: &Limit<Duration>) -> Duration {
        self.optional_duration(key, limit).unwrap_or(limit.default)
    }

    pub(super) fn optional_duration(&self, key: &'static str, limit: &Limit<Duration>) -> Option<Duration> {
        let value = self.value(key)?;
        let duration = value.quantity("a duration such as \"500ms\"", units::duration)?;
        value.within(duration, limit, units::show_duration)
    }

    pub(super) fn bytes(&self, key: &'static str, limit: &Limit<u64>) -> u64 {
        self.optional_bytes(key, limit).unwrap_or(limit.default)
    }

    pub(super) fn optional_bytes(&self, key: &'static str, limit: &Limit<u64>) -> Option<u64> {
        let value = self.value(key)?;
        let bytes = value.quantity("a size such as \"64KiB\"", units::bytes)?;
        value.within(bytes, limit, units::show_bytes)
    }

    /// A plain whole number.
    pub(super) fn count<T>(&self, key: &'static str, limit: &Limit<T>) -> T
    where
        T: Copy + PartialOrd + Display + TryFrom<i64>,
    {
        let count = self.value(key).and_then(|value| {
            let DeValue::Integer(integer) = value.value.get_ref() else {
                return value.wrong_type("a whole number");
            };
            match i64::from_str_radix(integer.as_str(), integer.radix()).map(T::try_from) {
                Ok(Ok(count)) => value.within(count, limit, |count| count.to_string()),
                _ => value.fail(format!("{integer} is not within {} to {}", limit.min, limit.max)),
            }
        });
        count.unwrap_or(limit.default)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, default: T, choices: &[(&str, T)]) -> T {
        self.value(key).and_then(|value| value.choice(choices)).unwrap_or(default)
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let known = self.known.into_inner();
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let message = match suggest::nearest(name, known.iter().copied()) {
                Some(near) => format!("unknown key; did you mean `{near}`?"),
                None => format!("unknown key; known here: {}", known.join(", ")),
            };
            self.context.sink.report(join(&self.path, name), Some(self.context.line(key.span().start)), message);
        }
    }

    fn sink(&self) -> &'a Sink {
        &self.context.sink
    }
}

impl<'a> Value<'a> {
    /// Reports a mistake of this value and gives `None`, so that a getter can end with it.
    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Option<T> {
        self.context.sink.report(self.path.clone(), Some(self.line()), message);
        None
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.as_text().or_else(|| self.wrong_type("a text in quotes"))
    }

    /// The text, if it is one; anything else is not reported.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text.as_ref()),
            _ => None,
        }
    }

    pub(super) fn is_empty_list(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Array(members) if members.is_empty())
    }

    pub(super) fn section(&self) -> Option<Section<'a>> {
        self.table_or("a table")
    }

    /// The table; `expected` says what else would have been right here.
    pub(super) fn table_or(&self, expected: &str) -> Option<Section<'a>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Some(Section {
                context: self.context,
                path: self.path.clone(),
                line: Some(self.line()),
                table: Some(table),
                known: RefCell::default(),
            }),
            _ => self.wrong_type(expected),
        }
    }

    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*choice);
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.fail(format!("\"{text}\" is not one of {}", words.join(", ")))
    }

    pub(super) fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        self.fail(format!("expected {expected}, found {}", found(self.value.get_ref())))
    }

    fn list(&self) -> Option<Vec<Value<'a>>> {
        let DeValue::Array(members) = self.value.get_ref() else {
            return self.wrong_type("a list in brackets");
        };
        let member = |(index, value)| Value { context: self.context, path: format!("{}[{index}]", self.path), value };
        Some(members.iter().enumerate().map(member).collect())
    }

    fn quantity<T>(&self, expected: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match self.value.get_ref() {
            DeValue::String(text) => read(text).map_or_else(|message| self.fail(message), Some),
            DeValue::Integer(number) => self.fail(format!("{number} has no unit: write {expected}")),
            _ => self.wrong_type(expected),
        }
    }

    fn within<T: Copy + PartialOrd>(&self, value: T, limit: &Limit<T>, show: impl Fn(T) -> String) -> Option<T> {
        if value < limit.min {
            return self.fail(format!("{} is below {}", show(value), show(limit.min)));
        }
        if value > limit.max {
            return self.fail(format!("{} is above {}", show(value), show(limit.max)));
        }
        Some(value)
    }

    fn line(&self) -> usize {
        self.context.line(self.value.span().start)
    }
}

fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text \"{text}\""),
        DeValue::Integer(integer) => format!("the number {integer}"),
        DeValue::Float(float) => format!("the number {float}"),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// `parent.key`; a key that is not a bare word is quoted, as in the file.
fn join(parent: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if parent.is_empty() { key } else { format!("{parent}.{key}") }
}
