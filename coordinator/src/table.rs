//! Tables: a heading, columns two spaces apart, numbers to the right. No lines.

use crate::failure::Failure;
use crate::human;
use crate::output::{Output, Tone};
use comfy_table::{CellAlignment, ContentArrangement, Table as Layout, presets};

/// A column's heading and which side its cells stand on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

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
            cells.set_padding((0, 2));
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

    pub(crate) fn print(&self, out: &mut Output) -> Result<(), Failure> {
        // Cells have no line breaks and are not wrapped: a line is a row.
        for (line, tone) in self.layout.lines().zip(std::iter::once(Tone::Strong).chain(self.tones.iter().copied())) {
            let line = out.paint(tone, line.trim_end());
            out.line(&line)?;
        }
        Ok(())
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
