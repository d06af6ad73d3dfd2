//! Tables in the manner of Go's `text/tabwriter`, as containerd's clients print them.

use std::io::{self, Write};

/// Rows of cells; every column is as wide as its widest cell and some space.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    padding: usize,
    minimum: usize,
    pad_last: bool,
}

impl Table {
    /// A table with one space between columns, as most listings have.
    pub fn new<const N: usize>(header: [impl Into<String>; N]) -> Self {
        Self { rows: vec![header.map(Into::into).into()], padding: 1, minimum: 1, pad_last: true }
    }

    /// A table with four spaces between columns, as the listings of containers, tasks and plugins have.
    pub fn wide<const N: usize>(header: [impl Into<String>; N]) -> Self {
        Self { padding: 4, minimum: 4, ..Self::new(header) }
    }

    /// The same table without space behind the last column, as the listing of content has it.
    pub fn ragged(mut self) -> Self {
        self.pad_last = false;
        self
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The table's text.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; columns];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (cell.chars().count() + self.padding).max(self.minimum).max(*width);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            for (index, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if index + 1 < row.len() || self.pad_last {
                    text.extend(std::iter::repeat_n(' ', widths[index] - cell.chars().count()));
                }
            }
            text.push('\n');
        }
        text
    }

    /// Prints the table.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print(&self) -> io::Result<()> {
        io::stdout().write_all(self.render().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["REF", "SIZE"]);
        table.row(["docker.io/x".into(), "1.0 B".into()]);
        assert_eq!(table.render(), "REF         SIZE  \ndocker.io/x 1.0 B \n");
    }

    #[test]
    fn wide_tables_have_four_spaces() {
        let mut table = Table::wide(["TASK", "PID"]);
        table.row(["a".into(), "7".into()]);
        assert_eq!(table.render(), "TASK    PID    \na       7      \n");
    }
}
