//! The report of `check` as a page: what it says, that it is well-formed and safe, and how a browser takes it.
#![cfg(all(feature = "html", feature = "jpeg"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod browser;

use std::path::{Path, PathBuf};

use verilume::image::{DecodeLimits, Interpolation, Picture};
use verilume::map::{Map, Sign, Space};
use verilume::render::{self, Look};
use verilume::report::check::{CheckReport, Finding, MethodChecked, PictureChecked, TestUsed, Threshold, Verdict};
use verilume::report::html::{Drawing, Page, PagePanel, Plate};
use verilume::report::{ModelUsed, Prediction};
use verilume::tensor::Tensor;

/// The browser, found when the tests were compiled.
const CHROMIUM: Option<&str> = needs::browser!();

/// A name that means mischief wherever it is not escaped.
const EVIL: &str = "pets/<script>alert('1')</script> \"quoted\" & \u{202e}gnp.\u{732b}é --> <!--.png";

/// Tests: id, title, question, measure, bound, panel.
const TESTS: [(&str, &str, &str, &str, Threshold, &str); 6] = [
    (
        "input_invariance",
        "Input invariance",
        "Does the map stay the same when all inputs are shifted and the first layer takes the shift back?",
        "max |E′−E| / max |E|",
        Threshold::AtMost(1e-6),
        "shifted",
    ),
    (
        "wrong_class",
        "Wrong class",
        "Does the map change when another class is asked for?",
        "|Spearman|",
        Threshold::AtMost(0.5),
        "wrong class",
    ),
    (
        "randomisation",
        "Randomisation",
        "Does the map change when the net's weights are drawn anew?",
        "|Spearman|",
        Threshold::AtMost(0.5),
        "randomised",
    ),
    (
        "completeness",
        "Completeness",
        "Do the map's values add up to the score?",
        "relative gap",
        Threshold::AtMost(0.05),
        "",
    ),
    (
        "stability",
        "Stability",
        "Does the map stay nearly the same when the picture is disturbed so little that the class stays?",
        "top-k overlap",
        Threshold::AtLeast(0.4),
        "attacked",
    ),
    (
        "deletion",
        "Deletion",
        "Does the score fall faster when the pixels that the map names are taken away than at random?",
        "area under the curve, share of random",
        Threshold::AtMost(1.0),
        "",
    ),
];

const METHODS: [(&str, &str); 6] = [
    ("gradient", "gradient"),
    ("input_x_gradient", "input_x_gradient"),
    ("integrated_gradients", "integrated_gradients:steps=50,rule=trapezoid,baseline=black"),
    ("smoothgrad", "smoothgrad:base=gradient,n=50,sigma=0.15"),
    ("guided_backprop", "guided_backprop"),
    ("grad_cam", "grad_cam:layer=last,upsample=bilinear"),
];

/// What test `t` says of method `m` on picture `p`: made up, but every kind of verdict occurs.
fn finding(p: usize, m: usize, t: usize) -> Finding {
    let (test, _, _, measure, threshold, _) = TESTS[t];
    let (verdict, value, detail): (_, _, &str) = match (METHODS[m].0, test) {
        ("input_x_gradient", "input_invariance") => {
            (Verdict::Fail, Some(1.37), "a constant shift of -1 changes the map by more than its largest value")
        }
        ("integrated_gradients", "input_invariance") => {
            (Verdict::Fail, Some(0.62), "a checkered box is drawn into the map although the net does not see it")
        }
        (_, "input_invariance") => (Verdict::Pass, Some(3.1e-15), "no shift changes the map"),
        ("guided_backprop", "wrong_class") => {
            (Verdict::Fail, Some(0.981), "nearly the same map is drawn for the least likely class, 'shower curtain'")
        }
        (_, "wrong_class") => (Verdict::Pass, Some(0.12 + 0.07 * m as f64), "another class gives another map"),
        ("guided_backprop", "randomisation") => {
            (Verdict::Fail, Some(0.87), "with the upper half of the net drawn anew the map hardly changes")
        }
        (_, "randomisation") => (Verdict::Pass, Some(0.03 + 0.01 * m as f64), "the map goes with the weights"),
        ("integrated_gradients", "completeness") => {
            (Verdict::Pass, Some(0.0084), "the sum misses f(x) − f(x′) by 0.8 %")
        }
        (_, "completeness") => (Verdict::NotApplicable, None, "the method does not promise a sum"),
        ("gradient", "stability") if p != 1 => {
            (Verdict::Fail, Some(0.21), "a disturbance of 2/255 moves most of the hundred strongest pixels")
        }
        (_, "stability") => (Verdict::Pass, Some(0.48 + 0.05 * m as f64), "most of the strongest pixels stay"),
        _ => (Verdict::Pass, Some(0.3 + 0.1 * m as f64), "the score falls faster than at random"),
    };
    Finding {
        test: test.into(),
        method: METHODS[m].0.into(),
        verdict,
        value,
        threshold: value.map(|_| threshold),
        measure: measure.into(),
        detail: detail.into(),
        notes: if value.is_some() { vec![("SSIM".into(), 0.31), ("top-k overlap".into(), 0.207)] } else { Vec::new() },
    }
}

fn report(pictures: usize) -> CheckReport {
    let names = ["examples/chelsea.png", EVIL, "digits.npy"];
    let picture = |p: usize| PictureChecked {
        input: names.get(p).map_or_else(|| format!("photos/{p:03}.jpg"), |n| n.to_string()),
        index: (p == 2).then_some(17),
        prediction: [(282, "tiger cat", 8.31), (281, "tabby, tabby cat", 8.02), (285, "Egyptian cat", 7.77)]
            .map(|(index, label, score)| Prediction { index, label: (p != 2).then(|| label.into()), score })
            .to_vec(),
        findings: if p == 3 {
            Vec::new()
        } else {
            (0..METHODS.len()).flat_map(|m| (0..TESTS.len()).map(move |t| finding(p, m, t))).collect()
        },
        error: (p == 3).then(|| "photos/003.jpg: the file ends in the middle of a <block>".into()),
    };
    CheckReport {
        version: "0.1.0".into(),
        model: ModelUsed {
            name: "efficientnet-lite0".into(),
            architecture: "efficientnet_lite0".into(),
            sha256: "9f3c2d7a41be860055cf0e1d2a77b9c4e1380af6d5c2b1907e64f8a3b2c1d0e5".into(),
            head: "softmax".into(),
            read: Vec::new(),
        },
        device: "CPU, 2 threads, avx512 kernels, f64".into(),
        seed: 7,
        seconds: 83.2,
        tests: TESTS
            .map(|(id, title, question, ..)| TestUsed {
                id: id.into(),
                title: title.into(),
                question: question.into(),
                paper: "Kindermans, Hooker, Adebayo, Alber, Schütt, Dähne, Erhan, Kim, 2017: The (Un)reliability of saliency methods, NIPS workshop".into(),
            })
            .to_vec(),
        methods: METHODS.map(|(id, spec)| MethodChecked { id: id.into(), spec: spec.into() }).to_vec(),
        pictures: (0..pictures).map(picture).collect(),
assumed: Vec::new(),
 warnings: Vec::new(),
 record_version: verilume::report::RECORD_VERSION,
    }
}

/// A blob and some waves.
fn map(m: usize, k: usize, side: usize) -> Map {
    let at = |i: usize| {
        let (y, x) = ((i / side) as f32 / side as f32, (i % side) as f32 / side as f32);
        let (dy, dx) = (y - 0.4 - 0.05 * k as f32, x - 0.5);
        let wave = ((y * (9.0 + 7.0 * m as f32)).sin() * (x * (13.0 + 3.0 * k as f32)).cos()).powi(3);
        (-(dy * dy + dx * dx) * 14.0).exp() * (if m == 5 { 1.0 } else { wave })
    };
    let values = Tensor::f32([side, side], (0..side * side).map(at).collect()).unwrap();
    let sign = if m == 5 { Sign::Unsigned } else { Sign::Signed };
    Map::new(values, sign, Space::Input, 0, METHODS[m].0)
}

fn plate(view: &Picture) -> Plate {
    let mut panels = Vec::new();
    for (m, (method, _)) in METHODS.iter().enumerate() {
        let side = if m == 5 { 7 } else { view.width() };
        let shown = std::iter::once(("", "original")).chain(TESTS.iter().map(|t| (t.0, t.5)));
        for (k, (test, name)) in shown.filter(|(_, name)| !name.is_empty()).enumerate() {
            let drawn = render::overlay(view, &map(m, k, side), &Look::default()).unwrap();
            panels.push(PagePanel {
                method: (*method).into(),
                test: test.into(),
                name: name.into(),
                caption: ["tiger cat", "checkered box", "shower curtain (least likely)", "all weights", "ε = 2/255"][k]
                    .into(),
                drawing: Drawing::of(&drawn).unwrap(),
            });
        }
    }
    Plate { picture: Drawing::of(view).unwrap(), panels }
}

fn chelsea(side: usize) -> Picture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/chelsea.png");
    let whole = Picture::open(path, &DecodeLimits::default()).unwrap();
    let (w, h) = (whole.width(), whole.height());
    let rows = whole.rgb().chunks_exact(3 * w);
    let square = rows.flat_map(|row| row[3 * (w - h) / 6 * 3..][..3 * h].to_vec()).collect();
    Picture::new(h, h, square).unwrap().resized(side, side, Interpolation::Lanczos).unwrap()
}

fn page(report: &CheckReport, plates: &[Option<Plate>]) -> String {
    let mut bytes = Vec::new();
    let command = "verilume check examples/chelsea.png '<b>' -m gradient --seed 7";
    Page { report, plates, command }.write(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn full_page() -> String {
    page(&report(4), &[Some(plate(&chelsea(224))), Some(plate(&chelsea(200))), Some(plate(&chelsea(32)))])
}

/// A start tag, its attributes, or text, in order.
#[derive(Debug, PartialEq)]
enum Part {
    Open(String, Vec<(String, String)>),
    Close(String),
    Text(String),
}

/// Reads HTML as strictly as we write it.
fn parts(html: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = html.strip_prefix("<!doctype html>").expect("a doctype");
    while !rest.is_empty() {
        if let Some(tag) = rest.strip_prefix("</") {
            let end = tag.find('>').expect("an end of the tag");
            parts.push(Part::Close(tag[..end].to_owned()));
            rest = &tag[end + 1..];
        } else if let Some(tag) = rest.strip_prefix('<') {
            let named = tag.find(|c: char| !c.is_ascii_alphanumeric()).expect("more than a name");
            assert!(named > 0, "a bare '<' before {:?}", &tag[..tag.len().min(60)]);
            let name = tag[..named].to_owned();
            let mut attributes = Vec::new();
            rest = tag[named..].trim_start();
            while !rest.starts_with('>') && !rest.starts_with("/>") {
                let end = rest.find(|c: char| "=> /".contains(c)).expect("an end of the attribute");
                let key = rest[..end].to_owned();
                rest = &rest[end..];
                let mut value = String::new();
                if let Some(quoted) = rest.strip_prefix("=\"") {
                    let end = quoted.find('"').expect("a second quote");
                    value = unescaped(&quoted[..end]);
                    rest = &quoted[end + 1..];
                    assert!(rest.starts_with([' ', '>', '/']), "{key} runs into {:?}", &rest[..rest.len().min(40)]);
                }
                attributes.push((key, value));
                rest = rest.trim_start();
            }
            let closed = rest.starts_with("/>");
            rest = &rest[if closed { 2 } else { 1 }..];
            let raw = ["style", "script"].contains(&name.as_str());
            parts.push(Part::Open(name.clone(), attributes));
            if closed {
                parts.push(Part::Close(name));
            } else if raw {
                let end = rest.find(&format!("</{name}>")).expect("an end of raw text");
                parts.push(Part::Text(rest[..end].to_owned()));
                rest = &rest[end..];
            }
        } else {
            let end = rest.find('<').unwrap_or(rest.len());
            assert!(!rest[..end].contains('>'), "a bare '>' in {:?}", &rest[..end]);
            parts.push(Part::Text(unescaped(&rest[..end])));
            rest = &rest[end..];
        }
    }
    parts
}

fn unescaped(text: &str) -> String {
    let text = text.replace("&ensp;", "\u{2002}").replace("&#60;", "<").replace("&#62;", ">");
    let text = text.replace("&#34;", "\"").replace("&#39;", "'");
    assert!(!text.replace("&#38;", "").contains('&'), "an unknown entity in {text:?}");
    text.replace("&#38;", "&")
}

const VOID: [&str; 4] = ["meta", "link", "img", "wbr"];

#[test]
fn every_tag_is_closed_in_order_and_every_id_is_one() {
    for html in [full_page(), page(&report(1), &[]), page(&report(0), &[])] {
        let mut open: Vec<String> = Vec::new();
        let mut ids = std::collections::HashSet::new();
        let mut wanted = Vec::new();
        for part in parts(&html) {
            match part {
                Part::Open(name, attributes) => {
                    for (key, value) in attributes {
                        match key.as_str() {
                            "id" => assert!(ids.insert(value.clone()), "{value} twice"),
                            "aria-controls" | "aria-labelledby" => wanted.push(value),
                            "href" if value.starts_with('#') => wanted.push(value[1..].to_owned()),
                            _ => {}
                        }
                    }
                    if !VOID.contains(&name.as_str()) {
                        open.push(name);
                    }
                }
                Part::Close(name) => assert_eq!(open.pop(), Some(name)),
                Part::Text(_) => {}
            }
        }
        assert!(open.is_empty(), "{open:?} stay open");
        for id in wanted {
            assert!(ids.contains(&id), "nothing has the id {id}");
        }
    }
}

#[test]
fn nothing_is_fetched_and_nothing_but_our_script_runs() {
    let html = full_page();
    let mut scripts = 0;
    for part in parts(&html) {
        let Part::Open(name, attributes) = part else { continue };
        scripts += usize::from(name == "script");
        assert!(!["iframe", "object", "embed", "form", "base", "b><"].contains(&name.as_str()), "{name}");
        for (key, value) in attributes {
            assert!(!key.starts_with("on") && key != "style", "{name} {key}");
            let fetches = ["src", "href", "srcset", "data", "poster", "action"].contains(&key.as_str());
            let inside =
                ["data:image/png;base64,", "data:image/jpeg;base64,", "#"].iter().any(|p| value.starts_with(p));
            assert!(!fetches || inside || value == "data:,", "{name} {key}={}", &value[..value.len().min(60)]);
        }
    }
    assert_eq!(scripts, 1);
    assert!(html.contains("default-src 'none'; img-src data:; style-src 'sha256-"));
    assert!(!html.contains("http://") && !html.contains("https://"), "an address outside");
    // Nothing of the program's own text fetches either.
    assert!(!html.contains("url(") && !html.contains("@import"));
}

#[test]
fn text_from_outside_stays_text() {
    let html = full_page();
    assert!(!html.contains("<script>alert") && !html.contains("<b>' -m") && !html.contains("<block>"));
    assert!(!html.contains('\u{202e}'), "a character that turns the line around");
    let text: String =
        parts(&html).into_iter().filter_map(|p| if let Part::Text(t) = p { Some(t) } else { None }).collect();
    let shown = EVIL.replace('\u{202e}', "\\u{202e}");
    assert!(text.contains(&shown));
    assert!(text.contains("verilume check examples/chelsea.png '<b>' -m gradient --seed 7"));
    assert!(text.contains("in the middle of a <block>"));
}

#[test]
fn every_finding_is_there() {
    let report = report(4);
    let html = page(&report, &[]);
    let text: Vec<String> =
        parts(&html).into_iter().filter_map(|p| if let Part::Text(t) = p { Some(t) } else { None }).collect();
    let count = |wanted: &str| text.iter().filter(|t| t.trim() == wanted).count();
    let findings: Vec<&Finding> = report.pictures.iter().flat_map(|p| &p.findings).collect();
    for detail in findings.iter().map(|f| &f.detail) {
        // Once a finding, and once more in the table for the worst of each method and test.
        let among_all = findings.iter().filter(|f| f.detail == *detail).count();
        assert!(count(detail) > among_all, "{detail}: {} of {among_all}", count(detail));
    }
    for value in ["1.37", "0.62", "3.1e-15", "0.981", "0.0084", "0.21"] {
        assert!(count(value) > 0, "{value}");
    }
    for bound in ["≤ 1e-6", "> 1e-6", "≤ 0.5", "≥ 0.4", "< 0.4", "≤ 1"] {
        assert!(count(bound) > 0, "{bound}");
    }
    for test in &report.tests {
        assert!(count(&test.question) > 0 && count(&test.paper) > 0 && count(&test.title) > 1, "{}", test.id);
    }
    for fact in [report.model.sha256.as_str(), "7", "CPU, 2 threads, avx512 kernels, f64", "Verilume 0.1.0"] {
        assert!(count(fact) > 0, "{fact}");
    }
    assert!(count("2 of 6 methods pass every test that applies to them") > 0);
    assert!(text.iter().any(|t| t.contains("on 2 of 3 pictures: a disturbance of 2/255")));
    assert!(
        count("mixed 1/3") > 0 && count("pass 3/3") > 0 && count("FAIL 0/3") > 0,
        "a verdict that differs between pictures"
    );
}

#[test]
fn a_report_of_nothing_is_a_page() {
    let empty = CheckReport { tests: Vec::new(), methods: Vec::new(), pictures: Vec::new(), ..report(0) };
    assert!(page(&empty, &[]).contains("Nothing could be tested"));
    let one = CheckReport { methods: report(0).methods[..1].to_vec(), ..report(1) };
    assert!(page(&one, &[]).contains("gradient fails 1 test"));
}

#[test]
fn of_many_pictures_only_the_first_is_unfolded() {
    let html = page(&report(100), &[Some(plate(&chelsea(32)))]);
    let is_picture = |a: &[(String, String)]| a.contains(&("class".into(), "picture".into()));
    let sections: Vec<bool> = parts(&html)
        .into_iter()
        .filter_map(|p| match p {
            Part::Open(name, a) if name == "details" && is_picture(&a) => Some(a.iter().any(|(key, _)| key == "open")),
            _ => None,
        })
        .collect();
    assert_eq!(sections.len(), 100);
    assert!(sections[0] && !sections[1..].contains(&true));
    assert!(html.contains("the maps of 98 of the pictures are left out"));
}

/// Where pages and pictures of them are left for people to look at.
fn left(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[needs::chromium]
#[test]
fn a_browser_shows_it_without_complaint() {
    let path = left("check.html");
    std::fs::write(&path, full_page()).unwrap();
    let mut browser = browser::Browser::start(CHROMIUM.unwrap());
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")] {
        browser.screen(width, scheme);
        browser.open(&path);
        assert_eq!(browser.evaluate("innerWidth"), width);
        let wide = browser.evaluate("document.documentElement.scrollWidth").as_u64().unwrap();
        assert!(wide <= u64::from(width), "{wide} pixels wide on a screen of {width}");
        // All that is folded, too.
        browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)");
        browser.evaluate("document.querySelectorAll('.unfold').forEach(b => b.click())");
        let wide = browser.evaluate("document.documentElement.scrollWidth").as_u64().unwrap();
        assert!(wide <= u64::from(width), "unfolded: {wide} pixels wide on a screen of {width}");
        let loaded = "Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode(); })).then(d => d.length)";
        assert_eq!(browser.evaluate(loaded), 93);
        browser.open(&path);
        // Pictures far below are loaded late.
        assert_eq!(browser.evaluate(loaded), 93);
        browser.picture(&left(&format!("check-{width}-{scheme}.png")));
        let paper = browser.evaluate("getComputedStyle(document.body).backgroundColor");
        assert_eq!(paper == "rgb(19, 21, 24)", scheme == "dark", "{paper}");
        check_silence(&browser, &path);
    }
}

/// No request but for the file itself, no message, no error.
fn check_silence(browser: &browser::Browser, path: &Path) {
    let mut requests = 0;
    for event in &browser.events {
        match event["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let address = event["params"]["request"]["url"].as_str().unwrap();
                requests += usize::from(!address.starts_with("data:"));
                assert!(address.starts_with("data:") || address == format!("file://{}", path.display()), "{address}");
            }
            "Log.entryAdded" | "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" => panic!("{}", event["params"]),
            _ => {}
        }
    }
    assert_eq!(requests, 1, "the browser does not report requests");
}

#[needs::chromium]
#[test]
fn the_table_sorts_and_unfolds_by_keyboard() {
    let path = left("check-sorted.html");
    std::fs::write(&path, full_page()).unwrap();
    let mut browser = browser::Browser::start(CHROMIUM.unwrap());
    browser.screen(1280, "light");
    browser.open(&path);
    let order = "[...document.querySelectorAll('.unfold code')].map(c => c.textContent).join()";
    let named = METHODS.map(|(id, _)| id).join(",");
    assert_eq!(browser.evaluate(order), named.as_str());
    // The column of wrong class: guided backpropagation fails, the gradient changes most.
    let sort = "document.querySelectorAll('thead th')[2].ariaSort";
    browser.evaluate("document.querySelectorAll('thead button')[2].focus()");
    browser.press("Enter", "\r");
    assert_eq!(browser.evaluate(sort), "ascending");
    let best_first = "gradient,input_x_gradient,integrated_gradients,smoothgrad,grad_cam,guided_backprop";
    assert_eq!(browser.evaluate(order), best_first);
    browser.press("Enter", "\r");
    assert_eq!(browser.evaluate(sort), "descending");
    let worst_first = "guided_backprop,grad_cam,smoothgrad,integrated_gradients,input_x_gradient,gradient";
    assert_eq!(browser.evaluate(order), worst_first);
    browser.press("Enter", "\r");
    assert_eq!((browser.evaluate(sort), browser.evaluate(order)), ("none".into(), named.into()));

    let folded = "document.getElementById('detail-1').hidden";
    assert_eq!(browser.evaluate(folded), true);
    browser.evaluate("document.querySelector('.unfold').focus()");
    browser.press("Enter", "\r");
    assert_eq!(browser.evaluate(folded), false);
    browser.picture(&left("check-unfolded.png"));

    browser.evaluate("document.getElementById('theme').click()");
    assert_eq!(browser.evaluate("document.documentElement.dataset.theme"), "dark");
    browser.evaluate("location.hash = '#picture-3'");
    browser.evaluate("document.getElementById('all').click()");
    assert_eq!(browser.evaluate("document.querySelectorAll('details.picture:not([open])').length"), 0);
    browser.evaluate("dispatchEvent(new Event('beforeprint'))");
    assert_eq!(browser.evaluate("document.querySelectorAll('details:not([open])').length"), 0);
    browser.evaluate("dispatchEvent(new Event('afterprint'))");
    assert!(browser.evaluate("document.querySelectorAll('details:not([open])').length").as_u64().unwrap() > 0);
    check_silence(&browser, &path);
}
