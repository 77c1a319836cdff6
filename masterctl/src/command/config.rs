//! Live settings: what is in force and why, setting one, following them, and what was done.

mod view;

use std::collections::BTreeMap;

use millrace_proto::v1;

use self::view::{Changes, News, Set, Settings};
use crate::{
    cli::{Config, Format, Global},
    client::{self, Client, Patience},
    failure::Failure,
    output::{Reader, emit, print, say, written},
};

/// Does what is asked about live settings.
pub(super) async fn run(global: &Global, what: Config) -> Result<(), Failure> {
    let mut client = client::connect(global).await?;
    match what {
        Config::Get { key } => {
            let request = v1::ListSettingsRequest { name: key.unwrap_or_default() };
            print(&Settings(client.list_settings(request).await?.into_inner()), global.output)?;
        }
        Config::Set { key, value, who } => {
            let request = v1::SetSettingRequest { name: key, value: Some(value), by: who.by };
            print(&Set(client.set_setting(request).await?.into_inner()), global.output)?;
        }
        Config::Unset { key, who } => {
            let request = v1::SetSettingRequest { name: key, value: None, by: who.by };
            print(&Set(client.set_setting(request).await?.into_inner()), global.output)?;
        }
        Config::Watch { key } => watch(&mut client, &key.unwrap_or_default(), global.output).await?,
        Config::History { key, page } => {
            let request = v1::ListSettingChangesRequest {
                name: key.unwrap_or_default(),
                page_size: page.limit,
                page_token: page.after,
            };
            print(&Changes(client.list_setting_changes(request).await?.into_inner()), global.output)?;
        }
    }
    Ok(())
}

/// Prints what there is, and then what becomes different, over changes of the leader, until nobody reads it.
async fn watch(client: &mut Client, key: &str, format: Format) -> Result<(), Failure> {
    let mut patience = Patience::default();
    let mut known = None;
    loop {
        match watch_once(client, key, format, &mut known, &mut patience).await {
            Ok(()) => return Ok(()),
            Err(failure) => patience.wait(failure, say).await?,
        }
    }
}

/// What was printed last, by name; nothing before the first list.
type Known = Option<BTreeMap<String, v1::SettingView>>;

async fn watch_once(
    client: &mut Client,
    key: &str,
    format: Format,
    known: &mut Known,
    patience: &mut Patience,
) -> Result<(), Failure> {
    let request = v1::ListSettingsRequest { name: key.to_owned() };
    let mut lists = client.watch_settings(request).await?.into_inner();
    while let Some(list) = lists.message().await? {
        patience.answered();
        let text = match known {
            None => shown(&Settings(list.clone()), format)?,
            Some(known) => news(known, &list, format)?,
        };
        *known = Some(list.settings.into_iter().map(|setting| (setting.name.clone(), setting)).collect());
        if emit(text.as_bytes())? == Reader::Gone {
            return Ok(());
        }
    }
    Err(Failure::Unreachable("the master ended the watch".to_owned()))
}

fn shown(what: &impl crate::output::Printable, format: Format) -> anyhow::Result<String> {
    match format {
        Format::Table => Ok(what.text()),
        Format::Json | Format::Yaml => written(&what.value(), format),
    }
}

/// Returns a line or a document for each setting that is different now.
fn news(
    known: &BTreeMap<String, v1::SettingView>,
    list: &v1::ListSettingsResponse,
    format: Format,
) -> anyhow::Result<String> {
    let mut text = String::new();
    for setting in &list.settings {
        if known.get(&setting.name) != Some(setting) {
            text.push_str(&shown(&News(setting.clone()), format)?);
        }
    }
    let is_there = |name: &String| list.settings.iter().any(|setting| setting.name == *name);
    for name in known.keys().filter(|name| !is_there(name)) {
        let gone = v1::SettingView { name: name.clone(), ..v1::SettingView::default() };
        text.push_str(&shown(&News(gone), format)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, value: Option<&str>) -> v1::SettingView {
        v1::SettingView {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            source: "etcd".to_owned(),
            ..v1::SettingView::default()
        }
    }

    #[test]
    fn only_what_is_different_is_news() {
        let known =
            [setting("log", Some("info")), setting("pools.a", Some("4")), setting("pools.b", Some("1"))];
        let known = known.into_iter().map(|setting| (setting.name.clone(), setting)).collect();
        let settings = vec![setting("log", Some("info")), setting("pools.a", Some("5"))];
        let list = v1::ListSettingsResponse { settings };
        let text = news(&known, &list, Format::Table).unwrap();
        assert_eq!(text, "pools.a is 5 (etcd)\npools.b has no value\n");
        let json = news(&known, &list, Format::Json).unwrap();
        assert_eq!(json.matches("\"setting\"").count(), 2, "{json}");
    }
}
