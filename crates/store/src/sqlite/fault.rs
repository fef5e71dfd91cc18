//! From SQLite's errors to the store's.

use crate::StoreError;
use rusqlite::ErrorCode;
use std::sync::Arc;

/// Why a command's statements failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The store's own reason.
    Store(StoreError),
    /// The store's own reason, found after nothing but room was made, which is kept.
    Refused(StoreError),
    /// SQLite's.
    Sql(rusqlite::Error),
}

pub(super) type Outcome<T> = Result<T, Fault>;

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Fault::Store(error)
    }
}

impl Fault {
    /// In the store's words.
    pub(super) fn into_store_error(self, place: &Arc<str>) -> StoreError {
        match self {
            Fault::Store(error) | Fault::Refused(error) => error,
            Fault::Sql(error) => of_sqlite(&error, place),
        }
    }
}

/// SQLite's messages name tables and columns, never values, so that they may be shown.
pub(super) fn of_sqlite(error: &rusqlite::Error, place: &Arc<str>) -> StoreError {
    let place = place.clone();
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enums are not ours and grow; what is left is one kind to us"
    )]
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DiskFull => StoreError::Full { place },
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied => StoreError::ReadOnly { place },
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Busy { place },
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                StoreError::Corrupt { place, why: error.to_string().into() }
            }
            _ => StoreError::Unavailable { place, why: error.to_string().into() },
        },
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => StoreError::Corrupt { place, why: error.to_string().into() },
        _ => StoreError::Unavailable { place, why: error.to_string().into() },
    }
}
