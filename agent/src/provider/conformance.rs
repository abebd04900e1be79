//! What every provider must do, as a program: run against each implementation by its tests.

use super::{EndCause, Ended, Observed, Order, Provider, ProviderError, carry_out};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tradewind_protocol::InstanceId;
use tradewind_protocol::api::InstanceState;

/// A provider under test, and what only its maker can do to it.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The provider: no instances when the suite begins.
    fn provider(&self) -> Arc<dyn Provider>;
    /// Ends an instance without the provider's doing.
    async fn kill(&self, instance: &Observed);
}

/// What a provider did not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {what}")]
pub struct Violation {
    /// The rule, in words.
    pub rule: &'static str,
    /// What happened instead.
    pub what: String,
}

/// How long a provider may take for anything: a guard against waiting for ever, not a measurement.
const PATIENCE: Duration = Duration::from_secs(60);

/// Walks `subject` through the whole lifecycle. Leaves no instances behind when it succeeds.
pub async fn check(subject: &dyn Subject) -> Result<(), Violation> {
    let suite = Suite { provider: subject.provider() };
    suite.lifecycle().await?;
    suite.unknown_instances().await?;
    suite.stop_at_any_point().await?;
    suite.death(subject).await
}

struct Suite {
    provider: Arc<dyn Provider>,
}

fn ensure(holds: bool, rule: &'static str, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { rule, what: what() }) }
}

impl Suite {
    async fn lifecycle(&self) -> Result<(), Violation> {
        let id = id("conformance-1")?;
        ensure(self.list().await?.is_empty(), "the suite begins with no instances", || "there are some".into())?;
        self.twice(Order::Start, &id).await?;
        ensure(self.list().await?.len() == 1, "starting twice starts once", || "there is not one instance".into())?;
        self.becomes(&id, InstanceState::Warm, "a started instance becomes warm").await?;
        self.twice(Order::Deactivate, &id).await?;
        for _ in 0..2 {
            self.twice(Order::Activate, &id).await?;
            self.is(&id, InstanceState::Active, "an activated instance is active when the order returns").await?;
            self.twice(Order::Deactivate, &id).await?;
            self.is(&id, InstanceState::Warm, "a deactivated instance is warm when the order returns").await?;
        }
        self.twice(Order::Activate, &id).await?;
        self.twice(Order::Drain, &id).await?;
        let state = self.state(&id).await?;
        ensure(matches!(state, Some(InstanceState::Draining) | None), "a drained instance drains at once", || format!("it is {state:?}"))?;
        let revived = carry_out(&*self.provider, Order::Activate, &id).await;
        ensure(revived.is_err(), "a draining instance cannot be activated", || "it was".into())?;
        self.is_gone(&id, "a drained instance ends").await?;
        self.ended(&id, EndCause::Ordered).await
    }

    async fn unknown_instances(&self) -> Result<(), Violation> {
        let id = id("conformance-never-started")?;
        for order in [Order::Drain, Order::Stop] {
            self.twice(order, &id).await?;
        }
        for order in [Order::Activate, Order::Deactivate] {
            let answer = carry_out(&*self.provider, order, &id).await;
            ensure(answer.is_err(), "what does not exist cannot serve", || format!("{order} succeeded"))?;
        }
        ensure(self.list().await?.is_empty(), "orders other than start make nothing", || "there is an instance".into())
    }

    async fn stop_at_any_point(&self) -> Result<(), Violation> {
        for (name, until) in [("conformance-2", None), ("conformance-3", Some(InstanceState::Warm))] {
            let id = id(name)?;
            self.twice(Order::Start, &id).await?;
            if let Some(state) = until {
                self.becomes(&id, state, "a started instance becomes warm").await?;
            }
            self.twice(Order::Stop, &id).await?;
            self.is_gone(&id, "a stopped instance ends").await?;
            self.twice(Order::Stop, &id).await?;
            self.ended(&id, EndCause::Ordered).await?;
        }
        Ok(())
    }

    async fn death(&self, subject: &dyn Subject) -> Result<(), Violation> {
        let (one, other) = (id("conformance-4")?, id("conformance-5")?);
        for id in [&one, &other] {
            self.twice(Order::Start, id).await?;
            self.becomes(id, InstanceState::Warm, "a started instance becomes warm").await?;
            self.twice(Order::Activate, id).await?;
        }
        let listed = self.list().await?;
        let victim = listed.iter().find(|seen| seen.id == one);
        let victim = victim.ok_or_else(|| Violation { rule: "an active instance is listed", what: "it is not".into() })?;
        subject.kill(victim).await;
        self.is_gone(&one, "an instance that dies by itself is noticed").await?;
        self.ended(&one, EndCause::Unexpected).await?;
        self.is(&other, InstanceState::Active, "one instance's death leaves the others alone").await?;
        self.twice(Order::Drain, &other).await?;
        self.is_gone(&other, "a drained instance ends").await
    }

    /// Gives an order and repeats it: the second time changes nothing and succeeds as well.
    async fn twice(&self, order: Order, id: &InstanceId) -> Result<(), Violation> {
        for rule in ["an order that can be carried out succeeds", "an order that was carried out succeeds again"] {
            let answer: Result<(), ProviderError> = carry_out(&*self.provider, order, id).await;
            ensure(answer.is_ok(), rule, || format!("{answer:?}"))?;
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Observed>, Violation> {
        let listed = self.provider.list().await.map_err(|error| Violation { rule: "instances can be listed", what: error.to_string() })?;
        ensure(listed.is_sorted_by(|a, b| a.id < b.id), "instances are listed once each, ascending by id", || format!("{listed:?}"))?;
        Ok(listed)
    }

    async fn state(&self, id: &InstanceId) -> Result<Option<InstanceState>, Violation> {
        Ok(self.list().await?.into_iter().find(|seen| seen.id == *id).map(|seen| seen.state))
    }

    async fn is(&self, id: &InstanceId, wanted: InstanceState, rule: &'static str) -> Result<(), Violation> {
        let state = self.state(id).await?;
        ensure(state == Some(wanted), rule, || format!("{id} is {state:?}"))
    }

    async fn becomes(&self, id: &InstanceId, wanted: InstanceState, rule: &'static str) -> Result<(), Violation> {
        self.wait(id, Some(wanted), rule).await
    }

    async fn is_gone(&self, id: &InstanceId, rule: &'static str) -> Result<(), Violation> {
        self.wait(id, None, rule).await
    }

    /// Waits as the pool does: list, and list again when told that something changed.
    async fn wait(&self, id: &InstanceId, wanted: Option<InstanceState>, rule: &'static str) -> Result<(), Violation> {
        let arrived = async {
            while self.state(id).await? != wanted {
                self.provider.changed().await;
            }
            Ok(())
        };
        let late = || Violation { rule, what: format!("{id} was not {wanted:?} after {PATIENCE:?}, or nobody was told that it was") };
        tokio::time::timeout(PATIENCE, arrived).await.unwrap_or_else(|_| Err(late()))
    }

    async fn ended(&self, id: &InstanceId, cause: EndCause) -> Result<(), Violation> {
        let ended: Vec<Ended> = self.provider.take_ended();
        let told = ended.iter().find(|ended| ended.id == *id).map(|ended| ended.cause);
        ensure(told == Some(cause), "an end is reported once, with its cause", || format!("{id} {cause:?}: {ended:?}"))
    }
}

fn id(name: &str) -> Result<InstanceId, Violation> {
    InstanceId::new(name).map_err(|error| Violation { rule: "the suite's ids are valid", what: error.to_string() })
}
