//! What a route's responses are purged by, and what writes through it purge: parts of `[[sites.routes]]`.

use brim_semantics::{KeyField, KeySeparator};
use http::HeaderName;

use super::limits;
use super::reader::{Section, Value};
use super::site::plugin_name;
use super::template::Template;

/// Where surrogate keys come from, and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggingConfig {
    /// Response fields that carry surrogate keys, besides `Cache-Groups`.
    pub fields: Vec<KeyField>,
    /// Keys of every response of the route.
    pub keys: Vec<Template>,
    /// What becomes of a response with more keys than can be kept.
    pub overflow: KeyOverflow,
    /// Bytes of a content that is read for keys.
    pub content_max: u64,
    /// Items on pages of lists.
    pub items: Option<ItemRule>,
    /// The plugin whose active version adds keys, and says what a write purges.
    pub plugin: Option<String>,
    /// What a write purges.
    pub writes: WritesConfig,
}

/// What becomes of a response with more surrogate keys than can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyOverflow {
    /// It is not stored: a purge by a key that was left out would not find it.
    #[default]
    Refuse,
    /// It is stored with those that fit.
    Cut,
}

/// `[sites.routes.items]`: a collection of items as plain REST has it. The route's path is that of the collection, and
/// `path/ID` that of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRule {
    /// JSON pointer to the list in the content of a page (RFC 6901); empty: the content itself.
    pub list: String,
    /// JSON pointer to the id in an item.
    pub id: String,
    /// What its surrogate keys begin with.
    pub kind: String,
    /// Query parameters that choose a page and neither filter nor order.
    pub paging: Vec<String>,
    /// Whether changing an item can move it within the list that is neither filtered nor ordered by a parameter.
    pub order: ListOrder,
}

/// What a change of an item does to the order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListOrder {
    /// Nothing: by id, or by when it was made, and with all of them.
    #[default]
    Stable,
    /// It may move, come or go, as in a list by name, by when it was changed, or without what is archived.
    Mutable,
}

/// `[sites.routes.writes]`: what a request with a method that is not safe purges when it succeeded, besides its target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WritesConfig {
    /// By surrogate key, in the route's site.
    pub surrogate_keys: Vec<Template>,
    /// URLs of the same authority.
    pub urls: Vec<Template>,
    /// Prefixes of paths of the same authority.
    pub prefixes: Vec<Template>,
}

pub(super) fn read(section: &Section<'_>, plugin: Option<String>) -> TaggingConfig {
    let overflow = [("refuse", KeyOverflow::Refuse), ("cut", KeyOverflow::Cut)];
    TaggingConfig {
        fields: fields(section).unwrap_or_else(|| KeyField::defaults().to_vec()),
        keys: templates(section, "surrogate_keys", check_key),
        overflow: section.choice("surrogate_keys_overflow", KeyOverflow::default(), &overflow),
        content_max: section.bytes("tag_content_max", &limits::TAG_CONTENT_MAX),
        items: section.value("items").and_then(|value| value.section()).and_then(|section| items(section)),
        plugin,
        writes: writes(section),
    }
}

/// The plugin of `plugins.invalidation`.
pub(super) fn plugin(plugins: &Section<'_>) -> Option<String> {
    plugins.value("invalidation").and_then(|value| plugin_name(&value))
}

fn writes(section: &Section<'_>) -> WritesConfig {
    let section = section.section("writes");
    let writes = WritesConfig {
        surrogate_keys: templates(&section, "surrogate_keys", check_key),
        urls: templates(&section, "urls", check_url),
        prefixes: templates(&section, "prefixes", check_prefix),
    };
    section.finish();
    writes
}

fn items(section: Section<'_>) -> Option<ItemRule> {
    let list = section.required("list", |section, key| pointer(&section.value(key)?));
    let id = section.required("id", |section, key| {
        let value = section.value(key)?;
        let id = pointer(&value)?;
        if id.is_empty() { value.fail("is the item itself: an id is below it, such as \"/id\"") } else { Some(id) }
    });
    let kind = section.required("type", |section, key| {
        let value = section.value(key)?;
        let kind = value.text()?;
        super::site::check_name(kind).map_or_else(|message| value.fail(message), |()| Some(kind.to_owned()))
    });
    let paging = match section.value("paging") {
        None => limits::PAGING_PARAMETERS.map(str::to_owned).to_vec(),
        Some(_) => {
            let values = section.list("paging");
            if values.len() > limits::PAGING_PARAMETERS_MAX {
                section.report("paging", too_many(values.len(), limits::PAGING_PARAMETERS_MAX));
            }
            values.iter().filter_map(|value| value.text().map(str::to_owned)).collect()
        }
    };
    let order = [("stable", ListOrder::Stable), ("mutable", ListOrder::Mutable)];
    let order = section.choice("order", ListOrder::default(), &order);
    section.finish();
    Some(ItemRule { list: list?, id: id?, kind: kind?, paging, order })
}

/// RFC 6901: empty, or segments that begin with `/`, in which `~` stands before 0 or 1 only.
fn pointer(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let is_escaped = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if (!text.is_empty() && !text.starts_with('/')) || !is_escaped {
        return value.fail(format!("\"{text}\" is not a JSON pointer (RFC 6901), such as \"/data/items\""));
    }
    if text.len() > limits::POINTER_BYTES_MAX {
        return value.fail(format!("has {} bytes, more than {}", text.len(), limits::POINTER_BYTES_MAX));
    }
    Some(text.to_owned())
}

/// `["Surrogate-Key", { field = "X-Tags", separator = "comma" }]`
fn fields(section: &Section<'_>) -> Option<Vec<KeyField>> {
    section.value("surrogate_key_fields")?;
    let values = section.list("surrogate_key_fields");
    if values.len() > limits::KEY_FIELDS_MAX {
        section.report("surrogate_key_fields", too_many(values.len(), limits::KEY_FIELDS_MAX));
    }
    let mut fields: Vec<KeyField> = Vec::new();
    for value in &values {
        let Some(field) = field(value) else { continue };
        if fields.iter().any(|known| known.name == field.name) {
            value.fail::<()>(format!("\"{}\" is listed twice", field.name));
        } else {
            fields.push(field);
        }
    }
    Some(fields)
}

fn field(value: &Value<'_>) -> Option<KeyField> {
    let name_of = |value: &Value<'_>| {
        let text = value.text()?;
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if name == "cache-groups" => value.fail("Cache-Groups is read anyway"),
            Ok(name) => Some(name),
            Err(_) => value.fail(format!("\"{text}\" is not a field name")),
        }
    };
    if value.as_text().is_some() {
        return name_of(value).map(KeyField::named);
    }
    let section = value.table_or("a field name, or { field = \"…\", separator = \"…\" }")?;
    let name = section.required("field", |section, key| name_of(&section.value(key)?));
    let separators = [("space", KeySeparator::Space), ("comma", KeySeparator::Comma)];
    let separator = section.choice("separator", KeySeparator::Space, &separators);
    section.finish();
    Some(KeyField { name: name?, separator })
}

fn templates(section: &Section<'_>, key: &'static str, check: fn(&Template) -> Result<(), String>) -> Vec<Template> {
    let values = section.list(key);
    if values.len() > limits::TEMPLATES_MAX {
        section.report(key, too_many(values.len(), limits::TEMPLATES_MAX));
    }
    let read = |value: &Value<'_>| {
        let template = Template::parse(value.text()?).and_then(|template| check(&template).map(|()| template));
        template.map_or_else(|message| value.fail(message), Some)
    };
    values.iter().filter_map(read).collect()
}

fn check_key(template: &Template) -> Result<(), String> {
    let is_key = |text: &str| !text.chars().any(|letter| letter.is_whitespace() || letter.is_control());
    if template.texts().all(is_key) {
        return Ok(());
    }
    Err(format!("\"{template}\" holds white space, which no surrogate key can"))
}

fn check_url(template: &Template) -> Result<(), String> {
    let is_url = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if template.start().starts_with('/') && !template.start().starts_with("//") && template.texts().all(is_url) {
        return Ok(());
    }
    Err(format!("\"{template}\" is not a path with or without query: it begins with one / and is percent-encoded"))
}

fn check_prefix(template: &Template) -> Result<(), String> {
    check_url(template)?;
    if template.texts().any(|text| text.contains('?')) {
        return Err(format!("\"{template}\": a prefix ends before the query"));
    }
    Ok(())
}

fn too_many(count: usize, count_max: usize) -> String {
    format!("has {count} members, more than {count_max}")
}
