//! The page: one file that asks nothing of the network.
//!
//! What may run is what stands in this crate: a policy in the page allows the one script and the one style that carry a
//! number derived from the page's own content, so that nobody can know it beforehand.

use serde_json::json;

use super::figure::{Figure, Report, Section, data_of, figure_id};
use super::html::{Html, script_json};
use super::parts::{block, details};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// The page as HTML.
pub fn page(report: &Report) -> String {
    let body = body(report);
    let mut title = Html::new();
    title.element("title", &[], &format!("{} \u{b7} loev report", report.title));
    let mut content = blake3::Hasher::new();
    content.update(title.as_str().as_bytes()).update(body.as_str().as_bytes());
    let nonce = content.finalize().to_hex();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; \
         media-src data: 'self' file:; base-uri 'none'; form-action 'none'"
    );
    let mut head = Html::new();
    head.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    head.empty(
        "meta",
        &[("http-equiv", "Content-Security-Policy".into()), ("content", policy.as_str().into())],
    );
    head.raw(
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"referrer\" content=\"no-referrer\">\
         <link rel=\"icon\" href=\"data:,\">",
    );
    head.add(&title);
    head.open("style", &[("nonce", nonce.as_str().into())]).raw(STYLE).raw("</style></head>\n");
    head.add(&body);
    head.open("script", &[("nonce", nonce.as_str().into())]).raw(SCRIPT).raw("</script></body></html>\n");
    head.as_str().to_owned()
}

fn body(report: &Report) -> Html {
    let mut html = Html::new();
    html.raw(
        "<body><a class=\"skip\" href=\"#main\">Skip to the content</a><nav aria-label=\"Sections\"><ul>",
    );
    for section in &report.sections {
        let target = format!("#{}", section.id);
        html.raw("<li>").element("a", &[("href", target.as_str().into())], section.title).raw("</li>");
    }
    html.raw(
        "</ul><button type=\"button\" id=\"theme\" hidden aria-label=\"Colours: as the system\">\u{25d0}</button></nav>\n\
         <main id=\"main\"><header>",
    );
    html.add(&report.head).raw("</header>\n");
    report.sections.iter().for_each(|section| one(&mut html, section));
    html.raw("</main><footer><p>Written by loev ").text(env!("CARGO_PKG_VERSION"));
    html.raw(". Every figure shows the SQL that it comes from: loev sql RUN asks more.</p></footer>\n");
    let files: serde_json::Map<String, serde_json::Value> =
        report.files.iter().map(|(name, text)| (name.clone(), json!(text))).collect();
    let data = json!({ "figures": data_of(report), "map": report.map, "files": files });
    for (id, data) in [("data", &data), ("sound", &report.sound)] {
        html.open("script", &[("type", "application/json".into()), ("id", id.into())]);
        html.add(&script_json(data)).raw("</script>\n");
    }
    html
}

fn one(html: &mut Html, section: &Section) {
    html.open("section", &[("id", section.id.into())]).element("h2", &[], section.title);
    html.element("p", &[("class", "lead".into())], &section.lead);
    for mark in &section.marks {
        html.element("p", &[("class", "mark".into()), ("role", "note".into())], mark);
    }
    html.add(&section.body);
    for (i, figure) in section.figures.iter().enumerate() {
        shown(html, figure, &figure_id(section, i));
    }
    html.raw("</section>\n");
}

fn shown(html: &mut Html, figure: &Figure, id: &str) {
    html.open("figure", &[("class", "card".into()), ("id", id.into())]);
    html.element("h3", &[], &figure.title).add(&figure.body);
    html.open("figcaption", &[]).text(&figure.caption).close("figcaption");
    html.raw("<div class=\"tools\">");
    let label = format!("Save the data of {} as CSV", figure.title);
    html.open(
        "button",
        &[("type", "button".into()), ("data-csv", id.into()), ("aria-label", label.as_str().into())],
    );
    html.raw("Data</button>");
    html.add(&details("SQL", &block(&figure.sql.join(";\n\n"))));
    html.raw("</div></figure>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figure::Data;

    const HOSTILE: &str =
        "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'\u{202e}\u{2028}<!--";

    fn hostile() -> Report {
        let mut section = Section::new("stages", "Stages", HOSTILE);
        section.marks.push(HOSTILE.to_owned());
        let data = Data(vec![(HOSTILE.to_owned(), vec![HOSTILE.into()])]);
        let (title, caption, sql) = (HOSTILE.to_owned(), HOSTILE.to_owned(), vec![HOSTILE.to_owned()]);
        section.figures.push(Figure { title, caption, body: Html::new(), sql, data });
        Report {
            title: HOSTILE.to_owned(),
            head: Html::new(),
            sections: vec![section],
            map: json!({ "ids": [HOSTILE], HOSTILE: HOSTILE }),
            sound: json!({ HOSTILE: HOSTILE }),
            files: vec![(HOSTILE.to_owned(), HOSTILE.to_owned())],
        }
    }

    #[test]
    fn data_cannot_run_or_end_an_element() {
        let page = page(&hostile());
        assert!(
            !page.contains("alert(1)<") && !page.contains("<img src=x") && !page.contains("<!--"),
            "{page}"
        );
        assert_eq!(page.matches("<script").count(), 3);
        assert_eq!(page.matches("</script").count(), 3);
        assert!(!page.contains('\u{202e}') && !page.contains('\u{2028}'));
    }

    #[test]
    fn only_our_script_may_run_and_its_number_follows_the_content() {
        let nonce =
            |page: &str| page.split("nonce-").nth(1).unwrap().split("&#39;").next().unwrap().to_owned();
        let (one, again) = (page(&hostile()), page(&hostile()));
        assert_eq!(one, again);
        assert_eq!(nonce(&one).len(), 64);
        assert_ne!(nonce(&one), nonce(&page(&Report { title: "other".to_owned(), ..hostile() })));
        let mut more = hostile();
        more.sections[0].marks.push("more".to_owned());
        assert_ne!(nonce(&one), nonce(&page(&more)));
        assert!(
            SCRIPT.is_ascii() && !SCRIPT.contains("innerHTML") && !SCRIPT.contains("</"),
            "the script is data-free"
        );
    }
}
