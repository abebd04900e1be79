//! The one task that talks to a pool's backend.

use super::Shared;
use crate::provider::Standing;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How much more often the backend is read while an instance is on its way somewhere.
const MOVING_FACTOR: u32 = 4;

/// No matter how often: the shortest time between two looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// Carries out what is wanted and looks at what is, until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    // The first look comes before anything is carried out: what is there may be more than was remembered.
    look(&shared).await;
    loop {
        let now = Instant::now();
        let (dirty, until, moving, drained) = {
            let mut book = shared.book();
            let drained = book.hurry(now, now + shared.pace.drain_timeout);
            (book.is_dirty(), book.until(), book.is_moving(), drained)
        };
        if until.is_none_or(|until| until <= now) && dirty {
            carry_out(&shared).await;
            continue;
        }
        let refresh = if moving { shared.pace.refresh / MOVING_FACTOR } else { shared.pace.refresh };
        let due = (now + refresh.max(SHORTEST_PAUSE)).min(drained.unwrap_or(now + refresh.max(SHORTEST_PAUSE)));
        let due = until.filter(|until| *until > now).map_or(due, |until| until.min(due));
        tokio::select! {
            biased;
            () = shared.kick.notified() => {}
            () = shared.backend.changed(), if until.is_none() => look(&shared).await,
            // While plans fail, what is there is looked at all the same, unless that fails too.
            () = tokio::time::sleep_until(due) => if shared.book().may_look(Instant::now()) { look(&shared).await },
        }
    }
}

async fn look(shared: &Shared) {
    let (plan, jitter) = (shared.book().plan(&shared.pool), rand::random());
    let seen = shared.backend.read(&plan).await;
    let changed = match seen {
        Ok(seen) => shared.book().on_seen(seen, None),
        Err(reason) => {
            tracing::warn!(pool = %shared.pool, reason, "instances cannot be read");
            shared.book().on_unread(reason, Instant::now(), jitter);
            true
        }
    };
    tell(shared, changed);
    forget(shared);
}

async fn carry_out(shared: &Shared) {
    let (plan, record, jitter) = {
        let book = shared.book();
        (book.plan(&shared.pool), book.record(shared.origin.clone()), rand::random())
    };
    let path = shared.path.clone();
    let written = tokio::task::spawn_blocking(move || record.write(&path)).await;
    let outcome = match written {
        Ok(Ok(())) => shared.backend.apply(&plan).await,
        Ok(Err(error)) => Err(format!("cannot write {}: {error}", shared.path.display())),
        Err(_) => Err("the agent is shutting down".into()),
    };
    match outcome {
        Ok(seen) => {
            shared.book().on_seen(seen, Some(plan.serial));
            // That it was carried out. If this is lost, the instance shows itself to the agent's next life.
            let (record, path) = (shared.book().record(shared.origin.clone()), shared.path.clone());
            let _ = tokio::task::spawn_blocking(move || record.write(&path)).await;
        }
        Err(reason) => {
            tracing::warn!(pool = %shared.pool, serial = plan.serial, reason, "a plan was not carried out");
            shared.book().on_failed(reason, Instant::now(), jitter);
        }
    }
    tell(shared, true);
    forget(shared);
}

fn tell(shared: &Shared, changed: bool) {
    shared.rounds.send_modify(|rounds| *rounds += 1);
    if changed {
        shared.changed.notify_one();
    }
}

/// Removes the record of a retired pool of which nothing is left.
fn forget(shared: &Shared) {
    let book = shared.book();
    if shared.standing == Standing::Retired && book.is_empty() && !book.is_dirty() && book.failure().is_none() {
        let _ = std::fs::remove_file(&shared.path);
    }
}
