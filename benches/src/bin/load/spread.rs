//! Figures of several rounds in one cell of a table.

/// The median, and behind it the least and the most; one figure stands alone.
pub(crate) fn spread(mut figures: Vec<f64>, digits: usize) -> String {
    figures.sort_by(f64::total_cmp);
    match figures.as_slice() {
        [] => "-".to_owned(),
        [one] => format!("{one:.digits$}"),
        [least, .., most] => format!("{:.digits$} [{least:.digits$}-{most:.digits$}]", median(&figures)),
    }
}

/// Of at least one figure, in order.
fn median(figures: &[f64]) -> f64 {
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 { figures[middle] } else { (figures[middle - 1] + figures[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_medians_with_their_spread() {
        assert_eq!(spread(vec![30.0, 10.0, 20.0], 1), "20.0 [10.0-30.0]");
        assert_eq!(spread(vec![30.0, 10.0], 0), "20 [10-30]");
        assert_eq!(spread(vec![30.0], 0), "30");
        assert_eq!(spread(Vec::new(), 0), "-");
    }
}
