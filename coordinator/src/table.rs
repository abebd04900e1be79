//! Tables: a heading, columns two spaces apart, numbers to the right. No lines.

use crate::failure::Failure;
use crate::human;
use crate::output::{Output, Tone};
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table as Layout, presets};

/// A column's heading and which side its cells stand on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

/// Spaces between columns.
const GAP: u16 = 2;

/// Rows under headings.
pub(crate) struct Table {
    layout: Layout,
    tones: Vec<Tone>,
}

impl Table {
    pub(crate) fn new(columns: &[Column]) -> Self {
        let mut layout = Layout::new();
        layout.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        layout.set_header(columns.iter().map(|c| match c {
            Column::Left(name) | Column::Right(name) => *name,
        }));
        for (column, cells) in columns.iter().zip(layout.column_iter_mut()) {
            cells.set_padding((0, GAP));
            cells.set_cell_alignment(match column {
                Column::Left(_) => CellAlignment::Left,
                Column::Right(_) => CellAlignment::Right,
            });
        }
        Self { layout, tones: Vec::new() }
    }

    /// One row; the tone is the whole row's, so that what is well stays quiet.
    pub(crate) fn row<const N: usize>(&mut self, tone: Tone, cells: [String; N]) {
        self.layout.add_row(cells.iter().map(|cell| human::clean(cell)));
        self.tones.push(tone);
    }

    /// Hides the columns on the right that would not fit into `width`, and says how many. What is
    /// less important stands further right, and a wrapped table is none.
    fn fit(&mut self, width: usize) -> usize {
        let widths = self.layout.column_max_content_widths();
        let mut used = 0;
        let fitting = widths.iter().take_while(|content| {
            used += usize::from(**content);
            let fits = used <= width;
            used += usize::from(GAP);
            fits
        });
        // The first column says what a row is about.
        let shown = fitting.count().max(1);
        self.layout.column_iter_mut().skip(shown).for_each(|column| {
            column.set_constraint(ColumnConstraint::Hidden);
        });
        widths.len().saturating_sub(shown)
    }

    pub(crate) fn print(&mut self, out: &mut Output) -> Result<(), Failure> {
        let hidden = if out.terminal { self.fit(out.width) } else { 0 };
        // Cells have no line breaks and are not wrapped: a line is a row.
        for (line, tone) in self.layout.lines().zip(std::iter::once(Tone::Strong).chain(self.tones.iter().copied())) {
            let line = out.paint(tone, line.trim_end());
            out.line(&line)?;
        }
        if hidden == 0 {
            return Ok(());
        }
        let note = out.paint(Tone::Faint, &format!("({} more in a wider terminal)", human::some(hidden as u64, "column")));
        out.line(&note)
    }
}

/// Names and values, one pair a line.
pub(crate) fn print_pairs(pairs: &[(&str, String, Tone)], out: &mut Output) -> Result<(), Failure> {
    let width = pairs.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
    for (name, value, tone) in pairs {
        let value = out.paint(*tone, &human::clean(value));
        let name = out.paint(Tone::Faint, &format!("{name:width$}"));
        out.line(&format!("{name}  {value}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Column::{Left, Right};
    use super::*;

    #[test]
    fn a_narrow_terminal_loses_columns_from_the_right_and_no_more_than_needed() {
        let shown = |width| {
            let mut table = Table::new(&[Left("NAME"), Right("COUNT"), Left("WHERE")]);
            table.row(Tone::Plain, ["denver".to_owned(), "7".to_owned(), "127.0.0.1".to_owned()]);
            let hidden = table.fit(width);
            let lines: Vec<String> = table.layout.lines().map(|line| line.trim_end().to_owned()).collect();
            (hidden, lines.join("|"))
        };
        assert_eq!(shown(24), (0, "NAME    COUNT  WHERE|denver      7  127.0.0.1".to_owned()));
        assert_eq!(shown(23), (1, "NAME    COUNT|denver      7".to_owned()));
        assert_eq!(shown(13), (1, "NAME    COUNT|denver      7".to_owned()));
        assert_eq!(shown(12), (2, "NAME|denver".to_owned()));
        assert_eq!(shown(0), (2, "NAME|denver".to_owned()));
    }
}
