//! `tradewind history`: what was counted, bucket by bucket.

use super::title;
use crate::failure::Failure;
use crate::human;
use crate::output::{Output, Tone};
use crate::table::Column::{Left, Right};
use crate::table::Table;
use std::time::Duration;
use tradewind_protocol::api::HistoryView;

pub(super) fn print(all: &[HistoryView], out: &mut Output) -> Result<(), Failure> {
    for (at, history) in all.iter().enumerate() {
        if at > 0 {
            out.line("")?;
        }
        title(&history.series, out)?;
        let length = Duration::from_millis(history.bucket_ms);
        let mut table = Table::new(&[Left("FROM (UTC)"), Right("COUNT"), Right("RATE /s")]);
        let mut begins = history.since;
        for count in &history.counts {
            let rate = human::quantity(count / length.as_secs_f64().max(f64::MIN_POSITIVE));
            table.row(Tone::Plain, [human::time(begins), human::count(count.round() as u64), rate]);
            begins = begins.after(length);
        }
        table.print(out)?;
    }
    Ok(())
}
