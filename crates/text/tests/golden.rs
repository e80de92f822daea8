//! Chat templates render the same bytes as transformers.

use leyden_core::shared_material;
use leyden_text::check_renderings;

#[test]
fn renderings_equal_those_of_transformers() {
    let (Some(file), Some(templates)) =
        (shared_material("fixtures/chat/renderings.json"), shared_material("data/chat_templates"))
    else {
        return;
    };
    let report = check_renderings(&file, &templates).unwrap();
    assert!(report.holds(), "\n{report}");
}

#[test]
fn a_wrong_rendering_is_a_disagreement_and_a_missing_template_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.jinja"), "{{ messages[0].content }}").unwrap();
    let file = folder.path().join("cases.json");
    let case = |template: &str, text: &str| {
        format!(
            r#"[{{"template": "{template}", "conversation": "c", "tools": null, "text": "{text}",
            "messages": [{{"role": "user", "content": "hi"}}], "add_generation_prompt": false,
            "bos_token": null, "eos_token": null, "date_string": null, "error": null}}]"#
        )
    };
    std::fs::write(&file, case("t.jinja", "hi")).unwrap();
    assert!(check_renderings(&file, folder.path()).unwrap().holds());
    std::fs::write(&file, case("t.jinja", "ho")).unwrap();
    let report = check_renderings(&file, folder.path()).unwrap();
    assert_eq!(report.families[0].disagreements, 1);
    assert!(report.to_string().contains("character 1"), "{report}");
    std::fs::write(&file, case("absent.jinja", "hi")).unwrap();
    let error = check_renderings(&file, folder.path()).unwrap_err().to_string();
    assert!(error.contains("absent.jinja"), "{error}");
}
