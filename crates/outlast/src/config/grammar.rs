//! How the sections of the file and the words in them are declared: once, for the reader, for the editors' schema and
//! for people.

/// Declares sections. A field that is not declared is an error in the file.
macro_rules! sections {
    ($($(#[doc = $doc:literal])+ $section:ident { $($(#[doc = $field_doc:literal])+ $(#[schemars($($meta:tt)+)])? $field:ident: $type:ty,)+ })+) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Default, JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub(super) struct $section {
            $($(#[doc = $field_doc])+ $(#[schemars($($meta)+)])? pub(super) $field: Option<At<$type>>,)+
        }

        impl FromToml for $section {
            fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
                let table = $crate::config::read::section(value, place, &[$(stringify!($field)),+], log)?;
                Some($section { $($field: $crate::config::read::field(table, stringify!($field), place, log),)+ })
            }
        }
    )+};
}

/// Declares words a setting may be.
macro_rules! choices {
    ($($(#[doc = $doc:literal])+ $choice:ident { $($(#[doc = $variant_doc:literal])+ $text:literal => $variant:ident,)+ })+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
        pub(super) enum $choice {
            $($(#[doc = $variant_doc])+ #[schemars(rename = $text)] $variant,)+
        }

        impl FromToml for $choice {
            fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
                match String::from_toml(value, place, log)?.as_str() {
                    $($text => return Some($choice::$variant),)+
                    other => {
                        let known = [$(concat!("\"", $text, "\"")),+].join(", ");
                        let remedy = match $crate::config::read::did_you_mean(other, [$($text),+].into_iter()) {
                            Some(near) => format!("Did you mean \"{near}\"? Known are {known}"),
                            None => format!("Write one of {known}"),
                        };
                        log.error(place, format_args!("\"{other}\" is not known here"), remedy);
                        None
                    }
                }
            }
        }
    )+};
}
