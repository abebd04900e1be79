//! Data that scenarios name: files of the user's, or what the program carries with it, whose origin
//! and licence are told in `sim/data/README.md`. Compressed with gzip or not: the content tells.

use anyhow::{Context as _, bail, ensure};
use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

/// What a name begins with that is no file's: `shipped:abilene.csv.gz`.
pub const SHIPPED: &str = "shipped:";

/// The most plain bytes of a file. Half a year of the shipped recording, twenty times over.
const MAX_BYTES: u64 = 1 << 30;

/// The byte order mark, in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What the program carries with it.
const FILES: [(&str, &[u8]); 2] = [
    ("abilene.csv.gz", include_bytes!("../../agent/data/abilene.csv.gz")),
    ("cloud_rtt_ms.csv", include_bytes!("../data/cloud_rtt_ms.csv")),
];

/// The text of the file, decompressed.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let named = path.display();
    let bytes = match path.to_str().and_then(|name| name.strip_prefix(SHIPPED)) {
        None => std::fs::read(path).with_context(|| format!("cannot read {named}"))?,
        Some(name) => match FILES.iter().find(|(shipped, _)| *shipped == name) {
            Some((_, bytes)) => bytes.to_vec(),
            None => bail!("there is no {named}: {} are shipped", FILES.map(|(shipped, _)| shipped).join(" and ")),
        },
    };
    let mut plain = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        GzDecoder::new(&bytes[..]).take(MAX_BYTES + 1).read_to_end(&mut plain).with_context(|| format!("cannot decompress {named}"))?;
    } else {
        plain = bytes;
    }
    ensure!(plain.len() as u64 <= MAX_BYTES, "{named} has more than {MAX_BYTES} bytes");
    // What spreadsheets write in front would become a part of the first name.
    if plain.starts_with(BYTE_ORDER_MARK) {
        plain.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(plain).with_context(|| format!("{named} is not text"))
}

/// The names in the heading of a table with a column a series. Quotes around them are none of theirs.
pub(crate) fn heading(line: &str) -> anyhow::Result<Vec<&str>> {
    let names: Vec<&str> = line.split(',').map(|name| name.trim().trim_matches('"')).collect();
    ensure!(!names.iter().all(|name| name.parse::<f64>().is_ok()), "{line:?} is no heading: a first line with one name a column is wanted");
    for (at, name) in names.iter().enumerate() {
        ensure!(!names[..at].contains(name), "two columns are named {name:?}: rename one");
    }
    Ok(names)
}

/// Round-trip times between pairs, the smaller name first, in milliseconds: the lines
/// `from,to,rtt_ms` behind a header. Where both directions are given, their mean.
pub(crate) fn round_trips(text: &str) -> anyhow::Result<BTreeMap<(String, String), f64>> {
    let mut sums: BTreeMap<(String, String), (f64, u32)> = BTreeMap::new();
    if let Some(first) = text.lines().next() {
        let number = first.rsplit(',').next().is_some_and(|cell| cell.trim().parse::<f64>().is_ok());
        ensure!(!number, "line 1: {first:?} is no header: put one like \"from,to,rtt_ms\" before it");
    }
    for (i, line) in text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = || format!("line {}: {line:?} must be like \"eu-west-1,us-east-1,68.4\"", i + 1);
        let [from, to, ms] = line.split(',').map(str::trim).collect::<Vec<_>>()[..] else { bail!("{}", wrong()) };
        let ms: f64 = ms.parse().ok().filter(|ms| (0.0..=60_000.0).contains(ms)).with_context(wrong)?;
        if from != to {
            let sum = sums.entry(if from < to { (from.into(), to.into()) } else { (to.into(), from.into()) }).or_default();
            *sum = (sum.0 + ms, sum.1 + 1);
        }
    }
    Ok(sums.into_iter().map(|(pair, (sum, count))| (pair, sum / f64::from(count))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_files_are_read_by_name_and_others_refused_by_it() {
        assert!(read(Path::new("shipped:abilene.csv.gz")).unwrap().starts_with("time,atlam5>atlang,"));
        let pairs = round_trips(&read(Path::new("shipped:cloud_rtt_ms.csv")).unwrap()).unwrap();
        assert_eq!(pairs.len(), 30 * 29 / 2, "every pair of thirty regions");
        assert!(pairs.values().all(|ms| (1.0..500.0).contains(ms)));
        assert!(read(Path::new("shipped:nothing")).unwrap_err().to_string().contains("cloud_rtt_ms.csv"));
        assert!(read(Path::new("no such file")).unwrap_err().to_string().contains("no such file"));
        let marked = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(marked.path(), "\u{feff}ts,a\n").unwrap();
        assert_eq!(read(marked.path()).unwrap(), "ts,a\n", "without the byte order mark");
    }

    #[test]
    fn two_directions_are_one_mean_and_what_is_no_time_is_named_by_its_line() {
        let pairs = round_trips("from,to,rtt_ms\nb,a,10\na,b,20\n\na,a,1\nb,c,7\n").unwrap();
        let pair = |a: &str, b: &str| pairs[&(a.to_string(), b.to_string())];
        assert_eq!((pairs.len(), pair("a", "b"), pair("b", "c")), (2, 15.0, 7.0));
        assert!(round_trips("a,b,7\nb,c,8\n").unwrap_err().to_string().starts_with("line 1"), "no header");
        for bad in ["h\na,b", "h\na,b,x", "h\na,b,-1", "h\na,b,NaN", "h\na,b,1,2"] {
            assert!(round_trips(bad).unwrap_err().to_string().starts_with("line 2"), "{bad}");
        }
    }
}
