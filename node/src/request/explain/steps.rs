//! The decision line by line.

/// Lines in the order of the stages, each `stage: what and why`.
#[derive(Debug, Default)]
pub(super) struct Steps(Vec<String>);

impl Steps {
    /// One more line. Control characters in other people's words would be commands to a terminal: none passes.
    pub(super) fn say(&mut self, stage: &str, text: impl AsRef<str>) {
        let plain = text.as_ref().replace(char::is_control, "\u{fffd}");
        self.0.push(format!("{stage}: {plain}"));
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.0
    }
}
