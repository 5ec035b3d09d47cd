//! `brim explain`.

use std::collections::BTreeMap;

use super::args::ExplainArgs;
use super::client::Client;
use super::error::CliError;
use super::print;
use crate::admin::{ExplainRequest, FieldValues};
use crate::request::explain::model::Explanation;

/// Lines are broken before they get wider; a word that is longer stays whole.
const WIDTH_MAX: usize = 100;
/// Where the text of a line begins.
const INDENT: usize = 11;

pub(super) fn run(args: &ExplainArgs) -> Result<(), CliError> {
    let mut headers: BTreeMap<String, FieldValues> = BTreeMap::new();
    for (name, value) in &args.headers {
        let name = name.to_ascii_lowercase();
        let mut lines = headers.get(&name).map_or_else(Vec::new, |values| values.lines().to_vec());
        lines.push(value.clone());
        headers.insert(name, FieldValues::Several(lines));
    }
    let request =
        ExplainRequest { url: args.url.clone(), method: args.method.clone(), headers, content: args.content.clone() };
    let answer: Explanation = Client::new(&args.client)?.post("/v1/explain", &request)?;
    if args.client.json {
        return print::json(&answer);
    }
    for line in lines(&answer.decision.steps) {
        print::line(line);
    }
    Ok(())
}

/// The steps, each stage named once, in the first column.
fn lines(steps: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut stage_before = "";
    for step in steps {
        let (stage, text) = step.split_once(": ").unwrap_or(("", step));
        let shown = if stage == stage_before { "" } else { stage };
        stage_before = stage;
        for (number, part) in broken(text, WIDTH_MAX - INDENT).into_iter().enumerate() {
            let (stage, more) = if number == 0 { (shown, "") } else { ("", "  ") };
            lines.push(format!("{stage:INDENT$}{more}{part}"));
        }
    }
    lines
}

/// Breaks a text at its spaces; parts behind the first are to be indented by two more.
fn broken(text: &str, width: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        let is_first = used == 0;
        if !is_first && used + 1 + length > width {
            parts.push(String::new());
            used = 2;
        } else if !is_first {
            if let Some(part) = parts.last_mut() {
                part.push(' ');
            }
            used += 1;
        }
        if let Some(part) = parts.last_mut() {
            part.push_str(word);
        }
        used += length;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_named_once_and_lines_are_broken() {
        let long = format!("route: {}end", "word ".repeat(30));
        let steps = ["request: GET http://a/".to_owned(), long, "route: b: c".to_owned(), "key: 1".to_owned()];
        let lines = lines(&steps);
        assert_eq!(lines[0], "request    GET http://a/");
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH_MAX), "{lines:#?}");
        assert!(lines[1].starts_with("route      word word") && lines[2].starts_with("             word"));
        assert_eq!(lines[3..], ["           b: c", "key        1"]);
    }

    #[test]
    fn a_long_word_stays_whole() {
        let word = "x".repeat(200);
        assert_eq!(broken(&format!("{word} y"), 50), [word, "y".to_owned()]);
    }
}
