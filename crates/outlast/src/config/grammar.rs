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
                use $crate::config::{grammar::bare, read};
                let table = read::section(value, place, &[$(bare(stringify!($field))),+], log)?;
                Some($section { $($field: read::field(table, bare(stringify!($field)), place, log),)+ })
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

/// Settings that are one thing or another, told apart by their TOML type.
macro_rules! either {
    ($($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident($type:ty) if $is:expr,)+ })+) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, JsonSchema)]
        #[schemars(untagged)]
        pub(super) enum $name {
            $($(#[doc = $variant_doc])+ $variant($type),)+
        }

        impl FromToml for $name {
            fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
                $({
                    let is: fn(&DeValue<'_>) -> bool = $is;
                    if is(value) {
                        return <$type>::from_toml(value, place, log).map($name::$variant);
                    }
                })+
                None
            }
        }
    )+};
}

/// A field's name in the file: Rust's own words are written with `r#` here.
pub(super) fn bare(field: &'static str) -> &'static str {
    field.strip_prefix("r#").unwrap_or(field)
}
