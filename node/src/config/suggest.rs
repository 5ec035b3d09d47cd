//! The nearest known word to one that is not known: "did you mean …?".

/// The known word that `word` most likely stands for, if one is near enough to be worth saying.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the word may be wrong; with more, the suggestion is usually noise.
    let near_enough = (word.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(edits, _)| *edits <= near_enough)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters have to be added, removed, replaced or swapped with their neighbour; `-` is the same as `_`.
fn distance(left: &str, right: &str) -> usize {
    let letters =
        |word: &str| word.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect::<Vec<_>>();
    let (left, right) = (letters(left), letters(right));
    let width = right.len() + 1;
    let mut rows = vec![0; (left.len() + 1) * width];
    for i in 0..=left.len() {
        for j in 0..=right.len() {
            rows[i * width + j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = usize::from(left[i - 1] != right[j - 1]);
                let mut best = rows[(i - 1) * width + j - 1] + replaced;
                best = best.min(rows[(i - 1) * width + j] + 1).min(rows[i * width + j - 1] + 1);
                let swapped = i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
                if swapped { best.min(rows[(i - 2) * width + j - 2] + 1) } else { best }
            };
        }
    }
    rows[left.len() * width + right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_only_when_it_is_near() {
        let known = ["listen", "tls", "admin", "store", "plugins", "origins", "sites", "connect_timeout"];
        let table = [
            ("origin", Some("origins")),
            ("lsiten", Some("listen")),
            ("conect-timeout", Some("connect_timeout")),
            ("TLS", Some("tls")),
            ("xyz", None),
            ("", None),
            ("backend", None),
        ];
        for (word, expected) in table {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
