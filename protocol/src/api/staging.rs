//! What is made ready for a service before it is needed.

use crate::{ServiceName, StageName, Timestamp};
use serde::{Deserialize, Serialize};

/// One service's staging. `GET /v1/staging` is a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StagingView {
    /// Which service.
    pub service: ServiceName,
    /// Where it stands.
    pub state: StagingState,
    /// When the service is foreseen to be needed; none while it is not.
    pub needed_by: Option<Timestamp>,
    /// Whether that time has passed before all steps were done.
    pub late: bool,
    /// How often in a row the next thing to do has failed.
    pub failures: u32,
    /// Why it failed last.
    pub reason: Option<String>,
    /// The steps in the order in which they are done, and after them those of former configurations that are still to be undone.
    pub steps: Vec<StageStepView>,
}

/// Where the staging of a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StagingState {
    /// Not needed, and nothing is staged.
    Idle,
    /// Needed, and not all steps are done.
    Staging,
    /// All steps are done.
    Ready,
    /// No longer foreseen; what is done stays for now.
    Waning,
    /// What was done is being undone.
    Undoing,
}

/// One step of a service's staging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StageStepView {
    /// Its name.
    pub name: StageName,
    /// What it does: `preload`, `hook`, `connect` or `storage`.
    pub kind: String,
    /// Where it stands.
    pub state: StageState,
    /// Bytes that are there, of the preload that is running.
    pub bytes: Option<u64>,
    /// How many there are to be, where that is known.
    pub total_bytes: Option<u64>,
}

/// Where one step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StageState {
    /// Nothing was done.
    Pending,
    /// It is being done.
    Running,
    /// It was begun, and is not done.
    Begun,
    /// It is done.
    Done,
    /// It is being undone.
    Undoing,
}
