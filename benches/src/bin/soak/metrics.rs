//! The node's own figures, over the lives of its processes.

use std::collections::BTreeMap;

/// What is read of `/metrics`.
const PREFIX: &str = "brim_store_";

/// Figures by their names with labels, `brim_store_disk_bytes{part="index"}`.
pub(crate) type Figures = BTreeMap<String, f64>;

/// The lines of the text format that are figures of the store.
pub(crate) fn parse(text: &str) -> Figures {
    let figures = text.lines().filter(|line| line.starts_with(PREFIX)).filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    figures.collect()
}

/// Of counters, the sum over all processes; of gauges, the value now.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    of_ended: Figures,
    last: Figures,
}

impl Sums {
    /// The latest figures of the process that runs.
    pub(crate) fn update(&mut self, figures: Figures) {
        self.last = figures;
    }

    /// The process has ended; the next one counts from 0.
    pub(crate) fn end_process(&mut self) {
        for (name, value) in std::mem::take(&mut self.last) {
            if is_counter(&name) {
                *self.of_ended.entry(name).or_default() += value;
            }
        }
    }

    /// Figures as if it were one process.
    pub(crate) fn all(&self) -> Figures {
        let mut all = self.of_ended.clone();
        for (name, value) in &self.last {
            *all.entry(name.clone()).or_default() += value;
        }
        all
    }
}

fn is_counter(name: &str) -> bool {
    name.split('{').next().is_some_and(|name| name.ends_with("_total"))
}

/// The sum of a metric over its labels; 0 if there is none.
pub(crate) fn sum(figures: &Figures, metric: &str) -> f64 {
    figures.iter().filter(|(name, _)| name.split('{').next() == Some(metric)).map(|(_, value)| value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE brim_store_writes_total counter\nbrim_store_writes_total 7\n\
        brim_store_disk_bytes{part=\"segments\"} 100\nbrim_store_disk_bytes{part=\"index\"} 5\nbrim_info{version=\"1\"} 1\n";

    #[test]
    fn counters_are_summed_over_processes_and_gauges_are_not() {
        let mut sums = Sums::default();
        sums.update(parse(TEXT));
        sums.end_process();
        assert_eq!(sum(&sums.all(), "brim_store_writes_total"), 7.0);
        assert_eq!(sum(&sums.all(), "brim_store_disk_bytes"), 0.0);
        sums.update(parse(TEXT));
        sums.update(parse(TEXT));
        assert_eq!(sum(&sums.all(), "brim_store_writes_total"), 14.0);
        assert_eq!(sum(&sums.all(), "brim_store_disk_bytes"), 105.0);
        assert_eq!(sum(&sums.all(), "brim_info"), 0.0);
    }
}
