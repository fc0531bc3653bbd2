//! `pocketcard login`: lets a phone sign people in on this computer, by pam_pkcs11 or by sssd.
//!
//! Three promises: a person is admitted by one exact certificate, never by a name in it; the password stays possible,
//! whatever breaks; and `undo` puts every file back as it was, byte for byte.

mod certificate;
mod diff;
mod error;
mod files;
mod here;
mod lock;
mod mapping;
mod plan;
mod services;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pocketcard_ipc::control::{Client, Phone};

use crate::failure::Failure;
use crate::phones::short;
use crate::terminal::{Person, Terminal, print};

pub(crate) use error::LoginError;
use files::{Applied, Journal};
use lock::Lock;
use mapping::{Mapping, Mappings};
use plan::{Module, Plan};

/// Everything that we write, but for the PAM services themselves, lies here.
const FOLDER: &str = "etc/pocketcard/login";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
    /// Take this folder for `/`.
    #[arg(long, global = true, value_name = "FOLDER", default_value = "/", hide = true)]
    root: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommands {
    /// Let the phone in the reader sign a user in. The password stays possible.
    Setup(SetupArguments),
    /// Show who may sign in with which phone, and whether the files are as they were written.
    Show,
    /// For PAM's rule: fails if the card that is here is not of the user in PAM_USER.
    #[command(hide = true)]
    Here,
    /// Take a user's phone, or all, out again; with the last one every file is put back as it was.
    Undo(UndoArguments),
}

#[derive(Debug, clap::Args)]
struct SetupArguments {
    /// Who is signed in by the phone.
    #[arg(long, value_name = "NAME")]
    user: String,
    /// Which phone, if several are here: its name, its id, or the start of its id.
    #[arg(long, value_name = "PHONE")]
    phone: Option<String>,
    /// What looks at the card.
    #[arg(long, value_enum, default_value_t = Module::PamPkcs11)]
    module: Module,
    /// Where to sign in: a file in /etc/pam.d; may be given several times. Unless given: those of login, su, sudo, the
    /// greeters and the screen lockers that are installed.
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    /// The authority that issued the certificate, in PEM; needed unless the phone signed it itself.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Show what would change, as a diff, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask if this is the SHA-256 fingerprint of the phone's certificate.
    #[arg(long, value_name = "FINGERPRINT")]
    yes_if_fingerprint: Option<String>,
}

#[derive(Debug, clap::Args)]
struct UndoArguments {
    /// Only this user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Put files back that somebody has changed since, too; the changes are lost.
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(
    arguments: &Arguments,
    connect: impl FnOnce() -> Result<Client, Failure>,
) -> Result<ExitCode, Failure> {
    let root = &arguments.root;
    match &arguments.command {
        Subcommands::Setup(arguments) => setup(root, arguments, connect, &mut Terminal),
        Subcommands::Show => show(root),
        Subcommands::Here => Ok(here::run(root)),
        Subcommands::Undo(arguments) => undo(root, arguments.user.as_deref(), arguments.force),
    }
}

fn setup(
    root: &Path,
    arguments: &SetupArguments,
    connect: impl FnOnce() -> Result<Client, Failure>,
    person: &mut impl Person,
) -> Result<ExitCode, Failure> {
    mapping::check_user(root, &arguments.user)?;
    // Held while the person is asked, too: what they agree to is what is written.
    let _lock = (!arguments.dry_run).then(|| Lock::take(root, lock::PATIENCE)).transpose()?;
    let phone = choose(&connect()?.status()?, arguments.phone.as_deref())?;
    let certificate = certificate::of_slot(phone.slot)?;
    let authority = arguments.ca.as_deref().map(certificate::authority).transpose()?;
    let mapping = Mapping::new(&arguments.user, &phone, &certificate, authority)?;
    let mut mappings = Mappings::load(root)?;
    let module = mappings.module.unwrap_or(arguments.module);
    if module != arguments.module {
        return Err(LoginError::OtherModule(module).into());
    }
    mappings.module = Some(module);
    mappings.add(mapping.clone());
    let plan = Plan::new(root, &mappings, &arguments.services)?;

    person.tell(&description(&mapping, module, &plan));
    if arguments.dry_run {
        person.tell(&plan.diff(root)?);
        person.tell("Nothing was changed.\n");
        return Ok(ExitCode::SUCCESS);
    }
    match &arguments.yes_if_fingerprint {
        Some(given) if mapping::same_fingerprint(given, &mapping.sha256) => {}
        Some(_) => return Err(LoginError::Fingerprint { shown: mapping.sha256 }.into()),
        None if person.ask("Let this phone sign this user in?")? => {}
        None => return Err(LoginError::Declined.into()),
    }
    let left = files::apply(root, &plan)?;
    person.tell(&left_alone(&left));
    person.tell(&next_steps(&mapping, module));
    Ok(ExitCode::SUCCESS)
}

/// The phone whose card is to be used: the one that was named, or the only one that is here.
fn choose(status: &pocketcard_ipc::control::Status, wanted: Option<&str>) -> Result<Phone, LoginError> {
    let here = status.slots.iter().filter(|slot| slot.card_present).filter_map(|slot| slot.phone.as_ref());
    let fits = |phone: &&Phone| wanted.is_none_or(|wanted| phone.name == wanted || phone.id.starts_with(wanted));
    let mut found = here.filter(fits);
    match (found.next(), found.next()) {
        (Some(phone), None) => Ok(phone.clone()),
        (None, _) => Err(LoginError::NoPhone),
        (Some(_), Some(_)) => Err(LoginError::SeveralPhones),
    }
}

fn description(mapping: &Mapping, module: Module, plan: &Plan) -> String {
    let Mapping { user, phone, phone_id, subject, issuer, sha256, .. } = mapping;
    let mut text = format!(
        "User         {user}\nPhone        {phone} ({id})\nCertificate  {subject}\nIssued by    {issuer}\n\
         SHA-256      {sha256}\nBy           {module}\nIn           {services}\n",
        id = short(phone_id),
        services = plan.services().join(", "),
    );
    for left in plan.left_out() {
        text.push_str(&format!("Not in       {left}\n"));
    }
    text.push_str("Only this very certificate is accepted, for this user alone. The password goes on working.\n");
    text
}

fn next_steps(mapping: &Mapping, module: Module) -> String {
    let user = &mapping.user;
    let mut text = format!("Done. Try it in another window before you close this one: su - {user}\n");
    if module == Module::Sssd {
        text.push_str("sssd reads its configuration when it starts: systemctl restart sssd\n");
    }
    text.push_str("To take it back: pocketcard login undo\n");
    text
}

/// What was not written because somebody has changed it.
fn left_alone(files: &[PathBuf]) -> String {
    files.iter().map(|path| format!("Changed since it was written, so left as it is: /{}\n", path.display())).collect()
}

fn show(root: &Path) -> Result<ExitCode, Failure> {
    let mappings = Mappings::load(root)?;
    let Some(module) = mappings.module else {
        print("No phone signs anybody in here. Set one up: pocketcard login setup --user NAME\n");
        return Ok(ExitCode::SUCCESS);
    };
    let mut text = format!("By {module}:\n");
    text.extend(mappings.users.iter().map(line));
    for (path, state) in Journal::load(root)?.states(root) {
        text.push_str(&format!("{state}  /{}\n", path.display()));
    }
    print(&text);
    Ok(ExitCode::SUCCESS)
}

/// One mapping, for lists.
fn line(mapping: &Mapping) -> String {
    let Mapping { user, phone, phone_id, sha256, .. } = mapping;
    format!("{user}: {phone} ({}), certificate {sha256}\n", short(phone_id))
}

fn undo(root: &Path, user: Option<&str>, force: bool) -> Result<ExitCode, Failure> {
    let _lock = match Mappings::load(root)?.module {
        Some(_) => Lock::take(root, lock::PATIENCE)?,
        // Nothing to wait for, nor to be root for.
        None => return Err(LoginError::NothingSetUp.into()),
    };
    let mut mappings = Mappings::load(root)?;
    if mappings.module.is_none() {
        return Err(LoginError::NothingSetUp.into());
    }
    if let Some(user) = user {
        if !mappings.remove(|mapping| mapping.user == user) {
            return Err(LoginError::NoSuchMapping(user.to_owned()).into());
        }
        return remove(root, &mappings, force);
    }
    mappings.users.clear();
    remove(root, &mappings, force)
}

/// Writes what is left of the mappings; with none left, puts everything back.
fn remove(root: &Path, mappings: &Mappings, force: bool) -> Result<ExitCode, Failure> {
    if !mappings.users.is_empty() {
        let left = files::apply(root, &Plan::new(root, mappings, &[])?)?;
        print(&left_alone(&left));
        print("Done. Still there:\n");
        print(&mappings.users.iter().map(line).collect::<String>());
        return Ok(ExitCode::SUCCESS);
    }
    let Applied { files } = files::undo(root, force)?;
    print(&format!("Put back: {files} files. Everybody signs in as before.\n"));
    Ok(ExitCode::SUCCESS)
}

/// After a phone was forgotten: names whom it still signs in, and offers to take that back.
///
/// What remains admits nobody, since the phone's card is in no reader any more; it would, if the phone were paired again.
pub(crate) fn after_forgetting(phone_id: &str) -> Result<(), Failure> {
    let root = Path::new("/");
    let mappings = Mappings::load(root)?;
    let remaining: String = mappings.users.iter().filter(|mapping| mapping.phone_id == phone_id).map(line).collect();
    if remaining.is_empty() {
        return Ok(());
    }
    print(&format!("This phone still signs people in here, should it be paired again:\n{remaining}"));
    let mut terminal = Terminal;
    let may = rustix::process::geteuid().is_root() && terminal.can_answer();
    if may && terminal.ask("Take that back, too?")? {
        let _lock = Lock::take(root, lock::PATIENCE)?;
        let mut mappings = Mappings::load(root)?;
        mappings.remove(|mapping| mapping.phone_id == phone_id);
        remove(root, &mappings, false)?;
    } else {
        print("To take it back: sudo pocketcard login undo --user NAME\n");
    }
    Ok(())
}
