//! Samples and the table they end in.

use std::fmt;

/// A series of figures of one kind on one side.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a figure.
    pub fn push(&mut self, value: f64) {
        self.extend([value]);
    }

    /// The figure that `share` of all do not exceed.
    pub fn percentile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
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

impl Extend<f64> for Samples {
    fn extend<I: IntoIterator<Item = f64>>(&mut self, values: I) {
        self.0.extend(values);
        self.0.sort_by(f64::total_cmp);
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut samples = Self::default();
        samples.extend(values);
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

/// What a figure is to reach.
#[derive(Clone, Copy, Debug)]
pub enum Aim {
    /// Ours is so many times better than theirs.
    Times(f64),
    /// Ours is no more than this, in the row's unit.
    AtMost(f64),
}

/// The comparison, row by row, in Markdown.
#[derive(Default)]
pub struct Table(Vec<Row>);

struct Row {
    what: String,
    unit: &'static str,
    ours: Samples,
    theirs: Samples,
    aim: Option<Aim>,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.theirs.median() / self.ours.median()
    }

    /// What is aimed at, and whether the median is there.
    fn aim(&self) -> String {
        let (text, reached) = match self.aim {
            None => return String::new(),
            Some(Aim::Times(times)) => (format!("{}x", short(times)), self.ratio() >= times),
            Some(Aim::AtMost(most)) => (format!("{} {}", short(most), self.unit), self.ours.median() <= most),
        };
        format!("{text}: {}", if reached { "yes" } else { "no" })
    }
}

impl Table {
    /// Adds a row and prints it at once, so that a long run shows where it is.
    pub fn row(&mut self, what: &str, unit: &'static str, ours: Samples, theirs: Samples) {
        self.add(Row { what: what.into(), unit, ours, theirs, aim: None });
    }

    /// Adds a row that has an aim.
    pub fn aimed(&mut self, what: &str, unit: &'static str, ours: Samples, theirs: Samples, aim: Aim) {
        self.add(Row { what: what.into(), unit, ours, theirs, aim: Some(aim) });
    }

    fn add(&mut self, row: Row) {
        println!("{}: {} / {} {}", row.what, row.ours, row.theirs, row.unit);
        self.0.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aims = self.0.iter().any(|row| row.aim.is_some());
        let last = |head: &'static str| if aims { head } else { "" };
        writeln!(f, "| median (min-max) | berth | Debian containerd + runc | ratio | n |{}", last(" aim |"))?;
        writeln!(f, "|---|---|---|---|---|{}", last("---|"))?;
        for row in &self.0 {
            let ratio = row.ratio();
            let ratio = if ratio.is_finite() { format!("{}x", short(ratio)) } else { "-".into() };
            let Row { what, unit, ours, theirs, .. } = row;
            let n = ours.0.len().max(theirs.0.len());
            write!(f, "| {what}, {unit} | {ours} | {theirs} | {ratio} | {n} |")?;
            match aims {
                true => writeln!(f, " {} |", row.aim())?,
                false => writeln!(f)?,
            }
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
        assert!(table.to_string().contains("| run, ms | 11.0 (10.0-12.0) | 110 | 10.0x | 3 |\n"));
    }

    #[test]
    fn an_aim_is_reached_by_the_median() {
        let one = |value| Samples::from_iter([value]);
        let mut table = Table::default();
        table.row("plain", "ms", one(1.0), one(2.0));
        table.aimed("ratio", "ms", one(10.0), one(50.0), Aim::Times(5.0));
        table.aimed("slow", "ms", one(10.0), one(49.0), Aim::Times(5.0));
        table.aimed("bound", "ms", one(5.1), Samples::default(), Aim::AtMost(5.0));
        let text = table.to_string();
        for line in [
            "| median (min-max) | berth | Debian containerd + runc | ratio | n | aim |",
            "| plain, ms | 1.00 | 2.00 | 2.00x | 1 |  |",
            "| ratio, ms | 10.0 | 50.0 | 5.00x | 1 | 5.00x: yes |",
            "| slow, ms | 10.0 | 49.0 | 4.90x | 1 | 5.00x: no |",
            "| bound, ms | 5.10 | - | - | 1 | 5.00 ms: no |",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}: {text}");
        }
    }

    #[test]
    fn a_percentile_is_one_of_the_figures() {
        let hundred: Samples = (1..=100).map(f64::from).collect();
        assert_eq!((hundred.percentile(0.99), hundred.percentile(0.5)), (99.0, 50.0));
        assert_eq!(Samples::from_iter([7.0]).percentile(0.99), 7.0);
        assert!(Samples::default().percentile(0.99).is_nan());
    }
}
