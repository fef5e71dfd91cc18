//! Names of things. Cheap to clone, never interchangeable.

use serde::{Deserialize, Serialize};
use std::{borrow::Borrow, fmt, sync::Arc};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a name; the config reader has already judged its form.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        /// Ordered and equal as its text, so maps are looked up without making a name.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }
    };
}

name!(
    /// A vendor account and endpoint, as named in the config.
    ProviderId
);
name!(
    /// What a client names as `model`.
    RouteId
);
name!(
    /// One call as the client knows it: `req_` and a time-sorted UUID. Sent as `x-outlast-request-id`.
    RequestId
);
name!(
    /// A run, unique within its tenant: `run_` and a time-sorted UUID, or what a client named it.
    RunId
);
name!(
    /// One way to get an answer, spelled `provider/model`. The model part may itself hold slashes.
    TargetId
);
name!(
    /// Who asks: whose rows, whose limits, whose bill. Made by the host from the caller's key, never from what a caller
    /// says of itself.
    TenantId
);

name!(
    /// A tool, as named in the config and by models.
    ToolName
);
name!(
    /// A workflow that the server runs, as named in the config.
    WorkflowName
);
name!(
    /// A step of such a workflow.
    StepName
);

impl TargetId {
    /// Joins a provider and a model name.
    pub fn of(provider: &ProviderId, model: &str) -> Self {
        Self::new(format!("{provider}/{model}"))
    }

    /// The provider part: everything before the first slash.
    pub fn provider(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(provider, _)| provider)
    }

    /// The model part: everything after the first slash.
    pub fn model(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, model)| model)
    }
}
