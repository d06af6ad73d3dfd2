//! Samples and the table they end in.

use std::fmt;

/// A series of figures of one kind on one side.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a figure.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The middle figure, or the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let count = self.0.len();
        match (count, count % 2) {
            (0, _) => f64::NAN,
            (_, 1) => self.0[count / 2],
            _ => (self.0[count / 2 - 1] + self.0[count / 2]) / 2.0,
        }
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut samples = Self::default();
        values.into_iter().for_each(|value| samples.push(value));
        samples
    }
}

impl fmt::Display for Samples {
    /// `median (min-max)`; `-` when nothing was measured.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(min), Some(max)) = (self.0.first(), self.0.last()) else { return f.write_str("-") };
        if self.0.len() == 1 {
            return write!(f, "{}", short(*min));
        }
        write!(f, "{} ({}-{})", short(self.median()), short(*min), short(*max))
    }
}

/// Three figures that count.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The comparison, row by row, in Markdown.
#[derive(Default)]
pub struct Table(Vec<Row>);

struct Row {
    what: String,
    unit: &'static str,
    ours: Samples,
    theirs: Samples,
}

impl Table {
    /// Adds a row and prints it at once, so that a long run shows where it is.
    pub fn row(&mut self, what: &str, unit: &'static str, ours: Samples, theirs: Samples) {
        println!("{what}: {ours} / {theirs} {unit}");
        self.0.push(Row { what: what.into(), unit, ours, theirs });
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| median (min-max) | berth | Debian containerd + runc | ratio | n |\n|---|---|---|---|---|"
        )?;
        for Row { what, unit, ours, theirs } in &self.0 {
            let ratio = theirs.median() / ours.median();
            let ratio = if ratio.is_finite() { format!("{}x", short(ratio)) } else { "-".into() };
            writeln!(f, "| {what}, {unit} | {ours} | {theirs} | {ratio} | {} |", ours.0.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Samples::from_iter([3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Samples::from_iter([4.0, 1.0, 2.0, 3.0]).median(), 2.5);
    }

    #[test]
    fn a_row_tells_ratio_and_noise() {
        let mut table = Table::default();
        table.row("run", "ms", Samples::from_iter([10.0, 12.0, 11.0]), Samples::from_iter([110.0]));
        assert!(table.to_string().contains("| run, ms | 11.0 (10.0-12.0) | 110 | 10.0x | 3 |"));
    }
}
