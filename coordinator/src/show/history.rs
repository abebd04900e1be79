//! `tradewind history`: what was counted, bucket by bucket.

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
        let (series, length) = (&history.series, Duration::from_millis(history.bucket_ms));
        let title = format!("{} > {}  {}/{}/{}", series.source, series.destination, series.tenant, series.service, series.transaction_type);
        let title = out.paint(Tone::Strong, &title);
        out.line(&title)?;
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
