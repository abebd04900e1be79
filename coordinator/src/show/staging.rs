//! `tradewind staging`: what is made ready before it is needed.

use crate::failure::Failure;
use crate::human;
use crate::output::{Output, Tone};
use crate::table::Column::{Left, Right};
use crate::table::Table;
use tradewind_protocol::api::{StageState, StageStepView, StagingState, StagingView};

pub(super) fn print(all: &[StagingView], out: &mut Output) -> Result<(), Failure> {
    if all.is_empty() {
        return out.line("Nothing is staged for any service: its configuration has no [[service.stage]].");
    }
    let mut table =
        Table::new(&[Left("SERVICE"), Left("STATE"), Left("NEEDED BY (UTC)"), Left("STEP"), Left("KIND"), Left("STEP IS"), Right("BYTES")]);
    for service in all {
        let tone = if service.late || service.failures > 0 { Tone::Warning } else { Tone::Plain };
        let state = if service.late { format!("{}, late", state(service.state)) } else { state(service.state).to_owned() };
        let by = service.needed_by.map_or("-".to_owned(), human::time);
        for step in &service.steps {
            let cells = [
                service.service.to_string(),
                state.clone(),
                by.clone(),
                step.name.to_string(),
                step.kind.clone(),
                step_state(step.state).to_owned(),
                bytes(step),
            ];
            table.row(tone, cells);
        }
    }
    table.print(out)?;
    for service in all {
        if let Some(reason) = &service.reason {
            let line = out.paint(Tone::Warning, &format!("{} ({} in a row)", human::clean(reason), service.failures));
            out.line(&line)?;
        }
    }
    Ok(())
}

fn state(state: StagingState) -> &'static str {
    match state {
        StagingState::Idle => "idle",
        StagingState::Staging => "staging",
        StagingState::Ready => "ready",
        StagingState::Waning => "waning",
        StagingState::Undoing => "undoing",
    }
}

fn step_state(state: StageState) -> &'static str {
    match state {
        StageState::Pending => "pending",
        StageState::Running => "running",
        StageState::Begun => "begun",
        StageState::Done => "done",
        StageState::Undoing => "undoing",
    }
}

fn bytes(step: &StageStepView) -> String {
    match (step.bytes, step.total_bytes) {
        (Some(done), Some(total)) => format!("{} of {}", human::bytes(done), human::bytes(total)),
        (Some(done), None) => human::bytes(done),
        (None, _) => "-".to_owned(),
    }
}
