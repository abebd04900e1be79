//! Arithmetic of the networks: products of matrices, squashing functions, chance. All single precision.
//!
//! Sums are taken in one fixed order and nothing is left to the platform's mathematical library, so that the same
//! data and seed give the same weights to the last bit on every machine.

/// Rows and columns that [`multiply`] holds in registers at once: eight 128-bit ones, which every x86-64 and AArch64 has.
const ROWS: usize = 4;
const COLUMNS: usize = 8;

/// Adds `a` (`rows` x `inner`) times `b` (`inner` x `columns`) to `c` (`rows` x `columns`), all by rows.
pub(super) fn multiply(c: &mut [f32], a: &[f32], b: &[f32], rows: usize, inner: usize, columns: usize) {
    assert!(c.len() == rows * columns && a.len() == rows * inner && b.len() == inner * columns);
    let whole = columns - columns % COLUMNS;
    let mut row = 0;
    while row + ROWS <= rows {
        (0..whole).step_by(COLUMNS).for_each(|column| block(c, a, b, (row, column), inner, columns));
        (row..row + ROWS).for_each(|row| line(c, a, b, (row, whole), inner, columns));
        row += ROWS;
    }
    (row..rows).for_each(|row| line(c, a, b, (row, 0), inner, columns));
}

/// One row, from a column on.
fn line(c: &mut [f32], a: &[f32], b: &[f32], (row, column): (usize, usize), inner: usize, columns: usize) {
    if column == columns {
        return;
    }
    let to = &mut c[row * columns + column..(row + 1) * columns];
    for (x, from) in a[row * inner..][..inner].iter().zip(b.chunks_exact(columns)) {
        to.iter_mut().zip(&from[column..]).for_each(|(c, b)| *c += x * b);
    }
}

#[inline(always)]
fn block(c: &mut [f32], a: &[f32], b: &[f32], (row, column): (usize, usize), inner: usize, columns: usize) {
    let mut sums = [[0.0_f32; COLUMNS]; ROWS];
    let lines: [&[f32]; ROWS] = std::array::from_fn(|r| &a[(row + r) * inner..][..inner]);
    for (r, sums) in sums.iter_mut().enumerate() {
        sums.copy_from_slice(&c[(row + r) * columns + column..][..COLUMNS]);
    }
    for k in 0..inner {
        let Some(line) = b[k * columns + column..].first_chunk::<COLUMNS>() else { return };
        for r in 0..ROWS {
            let x = lines[r][k];
            for j in 0..COLUMNS {
                sums[r][j] += x * line[j];
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        c[(row + r) * columns + column..][..COLUMNS].copy_from_slice(sums);
    }
}

/// `a` (`rows` x `columns`, by rows) with rows and columns exchanged.
pub(super) fn transposed(a: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut turned = vec![0.0; a.len()];
    for (r, row) in a.chunks_exact(columns.max(1)).take(rows).enumerate() {
        row.iter().enumerate().for_each(|(c, value)| turned[c * rows + r] = *value);
    }
    turned
}

/// The hyperbolic tangent, to seven digits: a rational function (the continued fraction of Lambert, seven terms).
pub(super) fn tanh(x: f32) -> f32 {
    let x = x.clamp(-4.97, 4.97);
    let s = x * x;
    let above = x * (135_135.0 + s * (17_325.0 + s * (378.0 + s)));
    let below = 135_135.0 + s * (62_370.0 + s * (3_150.0 + s * 28.0));
    above / below
}

/// The logistic function.
pub(super) fn sigmoid(x: f32) -> f32 {
    0.5 + 0.5 * tanh(0.5 * x)
}

/// Chance from a seed: SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`, which is at least 1; the bias of the remainder is far below what sampling notices.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Between -1 and 1.
    pub(super) fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = self.below(at + 1);
            items.swap(at, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_definition_at_every_size() {
        let mut chance = Chance::new(3);
        for (rows, inner, columns) in [(1, 1, 1), (4, 3, 8), (5, 7, 9), (9, 2, 17), (3, 5, 8), (8, 0, 8)] {
            let a: Vec<f32> = (0..rows * inner).map(|_| chance.signed()).collect();
            let b: Vec<f32> = (0..inner * columns).map(|_| chance.signed()).collect();
            let mut c = vec![1.0; rows * columns];
            multiply(&mut c, &a, &b, rows, inner, columns);
            for (at, value) in c.iter().enumerate() {
                let wanted: f32 = (0..inner).map(|k| a[at / columns * inner + k] * b[k * columns + at % columns]).sum();
                assert!((value - 1.0 - wanted).abs() < 1e-5, "{rows} {inner} {columns}");
            }
        }
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }

    #[test]
    fn squashing_is_near_the_real_thing_and_stays_in_bounds() {
        for at in -1_000..=1_000_i16 {
            let x = f32::from(at) / 100.0;
            assert!((tanh(x) - x.tanh()).abs() < 1e-3, "{x}: {}", tanh(x));
            assert!(tanh(x).abs() <= 1.0 && (0.0..=1.0).contains(&sigmoid(x)));
        }
    }

    #[test]
    fn chance_is_even_and_repeats() {
        let mut chance = Chance::new(7);
        let mean: f32 = (0..10_000).map(|_| chance.signed()).sum::<f32>() / 10_000.0;
        assert!(mean.abs() < 0.02, "{mean}");
        let mut items: Vec<usize> = (0..50).collect();
        chance.shuffle(&mut items);
        assert!(items != (0..50).collect::<Vec<_>>() && items.iter().sum::<usize>() == 49 * 25);
        assert_eq!(Chance::new(9).next(), Chance::new(9).next());
    }
}
