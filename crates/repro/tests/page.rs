//! The report's page in a real browser, on a phone's width and a screen's: it fits, says nothing on the console, and asks
//! nobody for anything. Without Chromium it says so and passes.

// The driver of the lower crate's tests.
#[path = "../../vision/tests/support/browser.rs"]
mod browser;
mod support;

use std::fs;
use std::path::Path;

use browser::Browser;
use serde_json::{Value, json};
use support::Place;

impl Browser {
    /// Opens a page in a window of this width, and forgets what happened before.
    fn open(&mut self, path: &Path, width: u64) {
        let screen = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", screen);
        self.call("Page.navigate", json!({"url": "about:blank"}));
        self.events.clear();
        self.call("Page.navigate", json!({"url": url(path)}));
        // A moment after everything is there: what a page starts may be told of a little later.
        let ready = "new Promise(done => { const soon = () => setTimeout(() => done(true), 300); \
             document.readyState === 'complete' ? soon() : addEventListener('load', soon); })";
        assert_eq!(self.value(ready), true);
    }

    fn happened(&self, methods: &[&str]) -> Vec<&Value> {
        let among = |event: &&Value| methods.iter().any(|method| event["method"] == *method);
        self.events.iter().filter(among).map(|event| &event["params"]).collect()
    }

    /// Words on the console: messages, exceptions, the browser's own complaints.
    fn console(&self) -> Vec<&Value> {
        self.happened(&["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"])
    }

    /// What was asked for, but for the page itself and what it carries.
    fn requests(&self, page: &Path) -> Vec<&str> {
        let asked = self.happened(&["Network.requestWillBeSent"]).into_iter();
        let asked = asked.map(|request| request["request"]["url"].as_str().unwrap());
        asked.filter(|asked| *asked != url(page) && !asked.starts_with("data:")).collect()
    }
}

fn url(path: &Path) -> String {
    format!("file://{}", path.display())
}

#[test]
fn the_page_fits_phone_and_screen_is_silent_and_asks_for_nothing() {
    let Some(mut browser) = Browser::start() else { return };
    for domain in ["Network", "Runtime", "Log"] {
        browser.call(&format!("{domain}.enable"), json!({}));
    }
    let place = Place::new();

    // A page that speaks and asks is noticed. Port 9 of this machine discards, where anybody listens at all.
    let loud = place.path("loud.html");
    fs::write(&loud, "<script>console.log('!')</script><img src='http://127.0.0.1:9/x.png'>").unwrap();
    browser.open(&loud, 390);
    assert!(!browser.console().is_empty());
    assert_eq!(browser.requests(&loud), ["http://127.0.0.1:9/x.png"]);

    // Both papers: whatever a page can show, failed runs with their logs among it.
    assert_eq!(place.run("run --seeds 2").status.code(), Some(3));
    let page = place.path("out/report.html");
    for width in [390, 1280] {
        browser.open(&page, width);
        browser.value("document.querySelectorAll('details').forEach(part => part.open = true)");
        assert_eq!(browser.value("document.querySelectorAll('table.claims tbody tr').length"), 8, "{width}");
        let whole = "[...document.images].every(image => image.complete && image.naturalWidth > 0)";
        assert_eq!(browser.value(whole), true, "{width}");
        let widest = browser.value("document.documentElement.scrollWidth").as_u64().unwrap();
        assert!(widest <= width, "{widest} pixels in a window of {width}");
        assert!(browser.console().is_empty(), "{width}: {:?}", browser.console());
        assert!(browser.requests(&page).is_empty(), "{width}: {:?}", browser.requests(&page));
    }
}

#[test]
fn paper_cuts_nothing_off_and_the_keyboard_reaches_and_marks_everything() {
    let Some(mut browser) = Browser::start() else { return };
    let place = Place::new();
    assert_eq!(place.run("run --seeds 2").status.code(), Some(3));
    browser.open(&place.path("out/report.html"), 1280);
    let frames = |condition: &str| {
        format!("[...document.querySelectorAll('.scroll')].map(frame => {condition}).reduce((a, b) => a && b)")
    };
    // What scrolls sideways does so by the keyboard too.
    assert_eq!(browser.value(&frames("frame.tabIndex === 0 && frame.ariaLabel.length > 0")), true);

    // A shape that is cut out would cut off the mark around it.
    browser.call("DOM.enable", json!({}));
    browser.call("CSS.enable", json!({}));
    let root = browser.call("DOM.getDocument", json!({}))["root"]["nodeId"].clone();
    let refuted = ".square.not-reproduced";
    let square = browser.call("DOM.querySelector", json!({"nodeId": root, "selector": refuted}))["nodeId"].clone();
    let clip = format!("getComputedStyle(document.querySelector('{refuted}')).clipPath");
    assert_ne!(browser.value(&clip), "none");
    browser.call("CSS.forcePseudoState", json!({"nodeId": square, "forcedPseudoClasses": ["focus-visible"]}));
    assert_eq!(browser.value(&clip), "none");

    browser.call("Emulation.setEmulatedMedia", json!({"media": "print"}));
    assert_eq!(browser.value(&frames("getComputedStyle(frame).overflowX === 'visible'")), true);
}
