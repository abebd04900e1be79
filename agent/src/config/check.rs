//! (being written)

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {}

/// All mistakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {}
