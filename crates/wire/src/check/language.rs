//! In which language a text is, where that can be said.
//!
//! Judged is running text only: code, tables, quotations, links and what stands between quotation marks may be in
//! any language. Of a JSON reply, the strings of prose length. It takes 60 letters (20 in scripts without spaces) and
//! a reliable detection to fail; where that is missing, the text passes. Languages that the detector takes for one
//! another are not held against each other.

use super::{
    duplicates::is_dense,
    prose::{self, Line},
};
use serde_json::Value;
use whatlang::Lang;

const LETTERS_MIN: usize = 60;
const DENSE_LETTERS_MIN: usize = 20;
/// More of the text would not make it surer.
const BYTES_MAX: usize = 16 << 10;
/// A JSON string with fewer letters is a name or a code rather than prose.
const STRING_LETTERS_MIN: usize = 30;

/// The languages that can be told apart, as ISO 639-1.
pub(crate) const KNOWN: &[(&str, Lang)] = &[
    ("af", Lang::Afr),
    ("ak", Lang::Aka),
    ("am", Lang::Amh),
    ("ar", Lang::Ara),
    ("az", Lang::Aze),
    ("be", Lang::Bel),
    ("bg", Lang::Bul),
    ("bn", Lang::Ben),
    ("ca", Lang::Cat),
    ("cs", Lang::Ces),
    ("cy", Lang::Cym),
    ("da", Lang::Dan),
    ("de", Lang::Deu),
    ("el", Lang::Ell),
    ("en", Lang::Eng),
    ("eo", Lang::Epo),
    ("es", Lang::Spa),
    ("et", Lang::Est),
    ("fa", Lang::Pes),
    ("fi", Lang::Fin),
    ("fr", Lang::Fra),
    ("gu", Lang::Guj),
    ("he", Lang::Heb),
    ("hi", Lang::Hin),
    ("hr", Lang::Hrv),
    ("hu", Lang::Hun),
    ("hy", Lang::Hye),
    ("id", Lang::Ind),
    ("it", Lang::Ita),
    ("ja", Lang::Jpn),
    ("jv", Lang::Jav),
    ("ka", Lang::Kat),
    ("km", Lang::Khm),
    ("kn", Lang::Kan),
    ("ko", Lang::Kor),
    ("la", Lang::Lat),
    ("lt", Lang::Lit),
    ("lv", Lang::Lav),
    ("mk", Lang::Mkd),
    ("ml", Lang::Mal),
    ("mr", Lang::Mar),
    ("my", Lang::Mya),
    ("nb", Lang::Nob),
    ("ne", Lang::Nep),
    ("nl", Lang::Nld),
    ("no", Lang::Nob),
    ("or", Lang::Ori),
    ("pa", Lang::Pan),
    ("pl", Lang::Pol),
    ("pt", Lang::Por),
    ("ro", Lang::Ron),
    ("ru", Lang::Rus),
    ("si", Lang::Sin),
    ("sk", Lang::Slk),
    ("sl", Lang::Slv),
    ("sn", Lang::Sna),
    ("sr", Lang::Srp),
    ("sv", Lang::Swe),
    ("ta", Lang::Tam),
    ("te", Lang::Tel),
    ("th", Lang::Tha),
    ("tk", Lang::Tuk),
    ("tl", Lang::Tgl),
    ("tr", Lang::Tur),
    ("uk", Lang::Ukr),
    ("ur", Lang::Urd),
    ("uz", Lang::Uzb),
    ("vi", Lang::Vie),
    ("yi", Lang::Yid),
    ("zh", Lang::Cmn),
    ("zu", Lang::Zul),
];

/// Languages close enough to be mistaken for each other, in text of some length even.
const TWINS: &[&[Lang]] = &[
    &[Lang::Nob, Lang::Dan],
    &[Lang::Hrv, Lang::Srp, Lang::Slv],
    &[Lang::Ces, Lang::Slk],
    &[Lang::Nld, Lang::Afr],
    &[Lang::Ind, Lang::Jav],
    &[Lang::Hin, Lang::Mar, Lang::Nep],
    &[Lang::Zul, Lang::Sna],
    &[Lang::Aze, Lang::Tur, Lang::Tuk, Lang::Uzb],
    &[Lang::Pes, Lang::Urd],
    &[Lang::Rus, Lang::Bel],
    &[Lang::Bul, Lang::Mkd],
];

/// The language of a code, if it is known.
pub(crate) fn of_code(code: &str) -> Option<Lang> {
    KNOWN.iter().find(|(known, _)| *known == code).map(|(_, language)| *language)
}

/// Whether a reply is surely in another language.
pub(super) fn differs(text: &str, value: Option<&Value>, wanted: Lang) -> bool {
    let mut running = String::new();
    match value {
        None => gather(text, &mut running),
        Some(value) => {
            let long = |text: &&str| text.chars().filter(|letter| letter.is_alphabetic()).count() >= STRING_LETTERS_MIN;
            let dense = |text: &&str| text.chars().filter(|letter| is_dense(*letter)).count() >= DENSE_LETTERS_MIN / 2;
            for text in prose::strings(value).iter().filter(|text| dense(text) || long(text)) {
                gather(text, &mut running);
            }
        }
    }
    let letters = running.chars().filter(|letter| letter.is_alphabetic()).count();
    let dense = running.chars().filter(|letter| is_dense(*letter)).count();
    if letters < LETTERS_MIN && dense < DENSE_LETTERS_MIN {
        return false;
    }
    let Some(found) = whatlang::detect(&running) else { return false };
    let twins = TWINS.iter().any(|group| group.contains(&found.lang()) && group.contains(&wanted));
    found.is_reliable() && found.lang() != wanted && !twins
}

/// Adds the running text of a piece.
fn gather(text: &str, running: &mut String) {
    for (line, words) in prose::lines(text) {
        if running.len() >= BYTES_MAX {
            return;
        }
        match line {
            Line::Prose | Line::Item => {
                unquoted(words, running);
                running.push('\n');
            }
            Line::Row | Line::Code | Line::Quote | Line::Blank => {}
        }
    }
}

/// Adds a line without links, inline code and what is in quotation marks.
fn unquoted(line: &str, running: &mut String) {
    let mut closing = None;
    let is_link = |word: &str| word.contains("://") || word.starts_with("www.") || word.contains('@');
    for word in line.split_inclusive(char::is_whitespace).filter(|word| !is_link(word)) {
        for letter in word.chars() {
            if running.len() >= BYTES_MAX {
                return;
            }
            match closing {
                Some(end) if letter == end => closing = None,
                Some(_) => {}
                None => {
                    closing = match letter {
                        '`' => Some('`'),
                        '"' => Some('"'),
                        '“' | '„' => Some('”'),
                        '«' => Some('»'),
                        '「' => Some('」'),
                        _ => None,
                    };
                    if closing.is_none() {
                        running.push(letter);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ENGLISH: &str = "Your parcel left the warehouse this morning and should arrive within two working days. If it does not, please write to us again and we will look into it.";
    const GERMAN: &str = "Ihr Paket hat heute Morgen das Lager verlassen und sollte innerhalb von zwei Werktagen ankommen. Falls nicht, schreiben Sie uns bitte noch einmal, wir kümmern uns darum.";
    const FRENCH: &str = "Votre colis a quitté l'entrepôt ce matin et devrait arriver dans les deux jours ouvrables. Sinon, écrivez-nous à nouveau et nous nous en occuperons.";
    const SPANISH: &str = "Su paquete salió del almacén esta mañana y debería llegar en dos días laborables. Si no es así, escríbanos de nuevo y lo investigaremos.";
    const JAPANESE: &str =
        "お客様の荷物は今朝倉庫を出発し、二営業日以内に到着する予定です。届かない場合は、もう一度ご連絡ください。";
    const CHINESE: &str =
        "您的包裹今天早上已离开仓库，预计两个工作日内送达。如果没有收到，请再次与我们联系，我们会进行调查。";

    #[test]
    fn another_language_is_seen_and_the_right_one_passes() {
        let texts =
            [("en", ENGLISH), ("de", GERMAN), ("fr", FRENCH), ("es", SPANISH), ("ja", JAPANESE), ("zh", CHINESE)];
        for (code, text) in texts {
            for (wanted, _) in texts {
                assert_eq!(differs(text, None, of_code(wanted).unwrap()), wanted != code, "{code} for {wanted}");
            }
        }
    }

    #[test]
    fn code_links_quotations_and_short_texts_are_not_held_against_a_reply() {
        let german = of_code("de").unwrap();
        for text in [
            "OK, done.".to_owned(),
            format!(
                "Das steht so in der Quelle: \"{ENGLISH}\" Mehr ist dazu leider nicht bekannt, wir fragen gerne noch einmal nach."
            ),
            format!(
                "{GERMAN}\n> {ENGLISH}\n> {ENGLISH}\n```text\n{ENGLISH}\n{ENGLISH}\n```\n| {ENGLISH} | {ENGLISH} |"
            ),
            format!("{GERMAN} `{ENGLISH}`"),
            "Siehe https://example.com/the-parcel-left-the-warehouse-this-morning-and-will-arrive-in-two-days-or-so"
                .to_owned(),
        ] {
            assert!(!differs(&text, None, german), "{text}");
        }
    }

    #[test]
    fn of_json_the_strings_of_prose_length_are_judged() {
        let german = of_code("de").unwrap();
        let reply = json!({"status": "in_transit", "carrier": "Parcel Force Worldwide", "note": GERMAN});
        assert!(!differs("", Some(&reply), german));
        let reply = json!({"status": "in_transit", "items": [{"note": ENGLISH}]});
        assert!(differs("", Some(&reply), german));
        let codes = json!({"a": "in_transit_to_the_warehouse", "b": "please_write_to_us_again"});
        assert!(!differs("", Some(&codes), german));
    }

    #[test]
    fn every_language_of_the_detector_has_a_code() {
        for language in Lang::all() {
            assert!(KNOWN.iter().any(|(_, known)| known == language), "{language:?}");
        }
        assert!(KNOWN.is_sorted_by_key(|(code, _)| *code));
    }
}
