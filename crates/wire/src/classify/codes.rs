//! Codes that providers define, compared without case and punctuation.

use super::said::Said;
use outlast_model::{Failure, failure::Deadline};

/// A code that means one thing only, whatever the message says.
pub(super) fn sure(said: &Said) -> Option<Failure> {
    said.kinds().find_map(|kind| {
        Some(match kind {
            "insufficientquota"
            | "creditbalanceexhausted"
            | "projectspendlimitexceeded"
            | "billingerror"
            | "billinghardlimitreached"
            | "billingnotactive"
            | "billingdisabled"
            | "insufficientcredits"
            | "insufficientbalance"
            | "insufficientfunds"
            | "paymentrequired"
            | "paymentrequirederror"
            | "exceededcurrentquotaerror"
            | "arrearage"
            | "blockedapiaccess"
            | "spendlimitexceeded"
            | "organizationspendlimitexceeded"
            | "budgetexceeded"
            | "servicequotaexceededexception" => Failure::QuotaExhausted,
            "contextlengthexceeded"
            | "contextwindowexceeded"
            | "contextwindowexceedederror"
            | "exceedcontextsizeerror"
            | "toomanyprompttokens"
            | "toomanytokens"
            | "requesttoolarge"
            | "requestentitytoolarge"
            | "prompttoolong"
            | "stringabovemaxlength" => Failure::ContextExceeded,
            "invalidapikey"
            | "incorrectapikey"
            | "incorrectapikeyerror"
            | "apikeyinvalid"
            | "apikeyexpired"
            | "authenticationerror"
            | "invalidauthenticationerror"
            | "unauthenticated"
            | "unauthorized"
            | "invalidauthentication"
            | "unrecognizedclientexception"
            | "expiredtokenexception"
            | "invalidsignatureexception"
            | "incompletesignature"
            | "incompletesignatureexception"
            | "missingauthenticationtoken"
            | "missingauthenticationtokenexception"
            | "invalidclienttokenid"
            | "accountdeactivated"
            | "accessterminated"
            | "organizationrestricted"
            | "apikeyserviceblocked" => Failure::Auth,
            "modelnotfound"
            | "deploymentnotfound"
            | "modelnotavailable"
            | "modeldecommissioned"
            | "modeldeprecated"
            | "invalidmodel"
            | "modeltermsrequired"
            | "modelpermissionblockedorg"
            | "modelpermissionblockedproject"
            | "unsupportedcountryregionterritory"
            | "servicedisabled"
            | "modelaccessdenied"
            | "resourcenotfoundexception" => Failure::AccessDenied,
            "contentfilter"
            | "contentpolicyviolation"
            | "responsibleaipolicyviolation"
            | "moderationblocked"
            | "datainspectionfailed"
            | "imagecontentpolicyviolation"
            | "cyberpolicy"
            | "biopolicy"
            | "contentpolicyviolationerror"
            | "safetyblock" => Failure::SafetyBlock,
            "serverisoverloaded"
            | "overloaded"
            | "overloadederror"
            | "engineoverloadederror"
            | "unavailableerror"
            | "serviceunavailableexception"
            | "modelnotreadyexception"
            | "capacityexceeded"
            | "serviceunavailableerror" => Failure::Overloaded,
            "modeltimeoutexception" | "timeouterror" | "deadlineexceeded" | "requesttimeout" => {
                Failure::Timeout(Deadline::Header)
            }
            "toolusefailed" | "invalidfunctionparameters" => Failure::ToolMismatch,
            "jsonvalidatefailed" => Failure::SchemaError,
            "modelstreamerrorexception" => Failure::StreamInterrupted,
            "modelerrorexception" | "internalserverexception" => Failure::ServerError,
            _ => return None,
        })
    })
}

/// A code for "too many": which of three things it means, the message tells.
pub(super) fn is_rate_limit(said: &Said) -> bool {
    said.kinds().any(|kind| {
        matches!(
            kind,
            "ratelimitexceeded"
                | "ratelimiterror"
                | "ratelimited"
                | "ratelimitreached"
                | "ratelimitreachederror"
                | "ratelimit"
                | "slowdown"
                | "toomanyrequests"
                | "toomanyrequestsexception"
                | "throttlingexception"
                | "throttlingratequota"
                | "throttlingallocationquota"
                | "resourceexhausted"
        )
    })
}

/// A code that usually means this, when neither a surer code nor the message says otherwise.
pub(super) fn likely(said: &Said) -> Option<Failure> {
    said.kinds().find_map(|kind| {
        Some(match kind {
            "permissionerror"
            | "permissiondenied"
            | "permissiondeniederror"
            | "forbidden"
            | "accessdenied"
            | "accessdeniedexception"
            | "notfounderror"
            | "notfound"
            | "resourcenotfounderror"
            | "operationnotsupported" => Failure::AccessDenied,
            "unavailable" | "serviceunavailable" => Failure::Overloaded,
            _ => return None,
        })
    })
}
