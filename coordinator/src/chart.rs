//! A small chart in characters: what was counted, then the forecast's median and its band.
//!
//! Curves are drawn in braille, two by four dots a character; the band shades the characters that
//! it passes through. The vertical axis begins at zero, so that heights compare; the horizontal one
//! is linear in time and marks where the forecast begins.

use crate::output::{Output, Tone};

/// What is drawn. Values are at equal distances in time; all in one unit.
pub(crate) struct Chart<'a> {
    /// What was counted, oldest first. May be empty.
    pub(crate) history: &'a [f64],
    /// The median of each step ahead.
    pub(crate) median: &'a [f64],
    /// The lower and upper end of the band of each step ahead.
    pub(crate) band: &'a [(f64, f64)],
    /// Writes a value on the vertical axis.
    pub(crate) label: fn(f64) -> String,
    /// What stands under the first point, under the first that is forecast, and under the last.
    pub(crate) times: [String; 3],
}

/// Rows of the plot: eight times four dots tell 3 % of the height apart.
const ROWS: usize = 8;
/// The fewest columns of the plot in which a curve is one.
const MIN_COLUMNS: usize = 16;
/// The most: beyond, the eye loses the axis.
const MAX_COLUMNS: usize = 96;
/// Dots across and down in one braille character.
const DOTS: (usize, usize) = (2, 4);

/// One character of the plot.
#[derive(Clone, Copy, Default)]
struct Cell {
    /// The dots that are set, as the braille block numbers them.
    dots: u8,
    curve: Option<Curve>,
    shaded: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Curve {
    History,
    Median,
}

impl Chart<'_> {
    /// The chart's lines, for `out`'s width and colours.
    pub(crate) fn lines(&self, out: &Output) -> Vec<String> {
        let top = nice_ceiling(self.highest());
        let labels: Vec<String> = (0..=ROWS)
            .map(|row| if row % 4 == 0 { (self.label)(top * (ROWS - row) as f64 / ROWS as f64) } else { String::new() })
            .collect();
        let margin = labels.iter().map(|l| l.chars().count()).max().unwrap_or(0);
        let columns = out.width.saturating_sub(margin + 3).clamp(MIN_COLUMNS, MAX_COLUMNS);
        let cells = self.plot(columns, top);
        let boundary = self.column_of(self.history.len(), columns);
        let mut lines: Vec<String> = cells
            .chunks(columns)
            .zip(&labels)
            .map(|(row, label)| {
                let tick = if label.is_empty() { '│' } else { '┤' };
                let axis = out.paint(Tone::Faint, &format!("{label:>margin$} {tick}"));
                format!("{axis}{}", self.row(row, boundary, out))
            })
            .collect();
        let corner = out.paint(Tone::Faint, &format!("{:>margin$} └{}", labels[ROWS], self.ruler(columns, boundary)));
        lines.push(corner);
        lines.push(out.paint(Tone::Faint, &format!("{:margin$}  {}", "", self.times(columns, boundary))));
        lines
    }

    fn highest(&self) -> f64 {
        let values = self.history.iter().chain(self.median).copied().chain(self.band.iter().map(|b| b.1));
        values.filter(|v| v.is_finite()).fold(0.0, f64::max)
    }

    fn points(&self) -> usize {
        self.history.len() + self.median.len()
    }

    /// Where point `i` lies, in dots from the left.
    fn dot_of(&self, i: usize, columns: usize) -> usize {
        let last = self.points().saturating_sub(1).max(1);
        i.min(last) * (columns * DOTS.0 - 1) / last
    }

    fn column_of(&self, i: usize, columns: usize) -> usize {
        self.dot_of(i, columns) / DOTS.0
    }

    fn plot(&self, columns: usize, top: f64) -> Vec<Cell> {
        let mut cells = vec![Cell::default(); columns * ROWS];
        self.shade(&mut cells, columns, top);
        // The median begins at the last count, so that the curve has no gap.
        let joint = self.history.last().map(|last| (self.history.len() - 1, *last));
        let median = joint.into_iter().chain(self.median.iter().enumerate().map(|(i, v)| (self.history.len() + i, *v)));
        self.draw(&mut cells, columns, top, median, Curve::Median);
        self.draw(&mut cells, columns, top, self.history.iter().copied().enumerate(), Curve::History);
        cells
    }

    fn shade(&self, cells: &mut [Cell], columns: usize, top: f64) {
        let per_row = top / ROWS as f64;
        let mut previous: Option<(usize, (f64, f64))> = None;
        for (i, &(low, high)) in self.band.iter().enumerate() {
            let column = self.column_of(self.history.len() + i, columns);
            // Where points are further apart than characters, the band is interpolated between them.
            let (from, start) = previous.unwrap_or((column, (low, high)));
            for c in from..=column {
                let share = if column == from { 1.0 } else { (c - from) as f64 / (column - from) as f64 };
                let (low, high) = (start.0 + share * (low - start.0), start.1 + share * (high - start.1));
                for row in 0..ROWS {
                    let floor = (ROWS - 1 - row) as f64 * per_row;
                    // A character is shaded when the band covers its middle, or lies inside it.
                    let middle = floor + per_row / 2.0;
                    let inside = low >= floor && high < floor + per_row && high > low;
                    cells[row * columns + c].shaded |= (low <= middle && middle <= high) || inside;
                }
            }
            previous = Some((column, (low, high)));
        }
    }

    fn draw(&self, cells: &mut [Cell], columns: usize, top: f64, points: impl Iterator<Item = (usize, f64)>, curve: Curve) {
        let height = ROWS * DOTS.1 - 1;
        let level = |v: f64| if v.is_finite() { ((v / top).clamp(0.0, 1.0) * height as f64).round() as usize } else { 0 };
        let mut previous: Option<(usize, usize)> = None;
        for (i, value) in points {
            let (x, y) = (self.dot_of(i, columns), level(value));
            let (from_x, from_y) = previous.unwrap_or((x, y));
            let slope = (y as f64 - from_y as f64) / (x - from_x).max(1) as f64;
            let at = |x: usize| (from_y as f64 + slope * (x - from_x) as f64).round() as usize;
            for step_x in from_x..=x {
                // Every dot of the line's rise since the last column, so that steep lines stay whole.
                let (a, b) = if x == from_x { (from_y, y) } else { (at(step_x.saturating_sub(1).max(from_x)), at(step_x)) };
                for step_y in a.min(b)..=a.max(b) {
                    let cell = &mut cells[(height - step_y) / DOTS.1 * columns + step_x / DOTS.0];
                    if cell.curve != Some(curve) {
                        *cell = Cell { dots: 0, curve: Some(curve), shaded: cell.shaded };
                    }
                    cell.dots |= dot(step_x % DOTS.0, (height - step_y) % DOTS.1);
                }
            }
            previous = Some((x, y));
        }
    }

    fn row(&self, row: &[Cell], boundary: usize, out: &Output) -> String {
        let (mut text, mut offset) = (String::new(), 0);
        // Equal neighbours share one change of colour.
        for run in row.chunk_by(|a, b| tone(*a) == tone(*b)) {
            let characters: String = run
                .iter()
                .enumerate()
                .map(|(i, cell)| match cell.curve {
                    Some(_) => char::from_u32(0x2800 + u32::from(cell.dots)).unwrap_or(' '),
                    None if cell.shaded => '░',
                    None if offset + i == boundary && !self.history.is_empty() => '┊',
                    None => ' ',
                })
                .collect();
            text.push_str(&out.paint(run.first().map_or(Tone::Plain, |cell| tone(*cell)), &characters));
            offset += run.len();
        }
        text
    }

    fn ruler(&self, columns: usize, boundary: usize) -> String {
        (0..columns).map(|c| if c == 0 || c == boundary || c == columns - 1 { '┴' } else { '─' }).collect()
    }

    /// The three times under their points; what would overlap is left out, the middle one first.
    fn times(&self, columns: usize, boundary: usize) -> String {
        let [first, begin, last] = &self.times;
        let mut line = vec![' '; columns.max(last.chars().count())];
        let mut free_from = 0;
        let end = line.len() - last.chars().count();
        let mut put = |text: &str, at: usize, limit: usize| {
            let length = text.chars().count();
            if at >= free_from && at + length <= limit {
                line[at..at + length].iter_mut().zip(text.chars()).for_each(|(slot, c)| *slot = c);
                free_from = at + length + 1;
            }
        };
        put(first, 0, end);
        put(begin, boundary.saturating_sub(begin.chars().count() / 2), end.saturating_sub(1));
        put(last, end, columns.max(last.chars().count()));
        line.into_iter().collect()
    }
}

fn tone(cell: Cell) -> Tone {
    match cell.curve {
        Some(Curve::History) => Tone::Plain,
        Some(Curve::Median) => Tone::Accent,
        None => Tone::Faint,
    }
}

/// The bit of a dot in the Unicode braille block.
fn dot(x: usize, y: usize) -> u8 {
    const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
    BITS[x][y]
}

/// The next number of the form 1, 2, 2.5, 4, 5, 8 or 10 times a power of ten: a scale whose half is short to write.
fn nice_ceiling(value: f64) -> f64 {
    if !value.is_finite() || value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 4.0, 5.0, 8.0, 10.0];
    steps.into_iter().map(|s| s * power).find(|c| *c >= value).unwrap_or(10.0 * power)
}
