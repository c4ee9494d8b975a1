//! Realistic applications, deployed by the built-in codedeploy-local and then updated. Each
//! test looks at the whole tree after both: names, modes, owners, contents, links.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test program")]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err as fs;

/// A file of a bundle: path, mode, content. With mode 0 it is a link to "content".
type File<'a> = (&'a str, u32, &'a str);

struct Host {
    _temporary: tempfile::TempDir,
    dir: PathBuf,
}

impl Host {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        fs::set_permissions(temporary.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let dir = fs::canonicalize(temporary.path()).unwrap();
        let d = dir.display();
        let configuration = format!(":root_dir: {d}/root\n:log_dir: {d}/log\n:max_revisions: 5\n");
        fs::write(dir.join("agent.yml"), configuration).unwrap();
        Self { _temporary: temporary, dir }
    }

    /// Writes files below the host's folder; `@/` in them is that folder.
    fn write(&self, below: &str, files: &[File<'_>]) {
        for (name, mode, text) in files {
            let path = self.dir.join(below).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = text.replace("@/", &format!("{}/", self.dir.display()));
            if *mode == 0 {
                fs_err::os::unix::fs::symlink(text, &path).unwrap();
            } else {
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
            }
        }
    }

    /// Deploys these files with this appspec, which has to succeed.
    fn deploy(&self, name: &str, appspec: &str, files: &[File<'_>]) {
        self.write(name, &[("appspec.yml", 0o644, appspec)]);
        self.write(name, files);
        let output = Command::new("/bin/sh")
            .args(["-c", "umask 022; exec \"$@\"", "sh"])
            .args([env!("CARGO_BIN_EXE_multideployer"), "codedeploy-local", "-c"])
            .arg(self.dir.join("agent.yml"))
            .arg("-l")
            .arg(self.dir.join(name))
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{name}: {out}{err}");
    }

    /// Asserts that this, and nothing else, is below a folder of the host.
    #[track_caller]
    fn has(&self, folder: &str, expected: &[&str]) {
        let mut lines = Vec::new();
        walk(&self.dir.join(folder), "", &mut lines);
        let expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
        assert_eq!(lines, expected, "{folder}: left is what is there");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap()
    }
}

/// `MODE NAME[/| = CONTENT| -> LINK][ OWNER:GROUP]`, the owner if it is not who runs the test.
fn walk(folder: &Path, prefix: &str, lines: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let about = fs::symlink_metadata(&path).unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let us = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let owner = match (about.uid(), about.gid()) {
            them if them == us => String::new(),
            (user, group) => format!(" {user}:{group}"),
        };
        let mode = about.mode() & 0o7777;
        if about.is_symlink() {
            let to = fs::read_link(&path).unwrap();
            lines.push(format!("link {name} -> {}{owner}", to.display()));
        } else if about.is_dir() {
            lines.push(format!("{mode:04o} {name}/{owner}"));
            walk(&path, &format!("{name}/"), lines);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            lines.push(format!("{mode:04o} {name} = {}{owner}", text.trim_end()));
        }
    }
}

fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("NOT RUN as it needs root: {test}");
    }
    root
}

#[test]
fn a_war_is_replaced_while_the_server_is_stopped() {
    let host = Host::new();
    host.write("tomcat/webapps", &[("ROOT/index.jsp", 0o644, "root")]);
    let spec = "version: 0.0
os: linux
files:
- {source: target/shop.war, destination: @/tomcat/webapps}
hooks:
  ApplicationStop: [{location: deploy/stop.sh, timeout: 60}]
  ApplicationStart: [{location: deploy/start.sh, timeout: 60}]
";
    // The server unpacks the archive into files that are nobody's.
    let revision = |number: &str, extra: &str| {
        let start = format!(
            "#!/bin/sh\necho start {number} >> @/log.txt\nmkdir @/tomcat/webapps/shop\n\
             cp @/tomcat/webapps/shop.war @/tomcat/webapps/shop/{extra}\n"
        );
        let stop =
            format!("#!/bin/sh\necho stop {number} >> @/log.txt\nrm -r @/tomcat/webapps/shop\n");
        host.deploy(
            number,
            spec,
            &[
                ("target/shop.war", 0o640, &format!("war {number}")),
                ("deploy/start.sh", 0o755, &start),
                ("deploy/stop.sh", 0o755, &stop),
            ],
        );
    };
    revision("1", "a.class");
    host.has(
        "tomcat/webapps",
        &[
            "0755 ROOT/",
            "0644 ROOT/index.jsp = root",
            "0755 shop/",
            "0640 shop/a.class = war 1",
            "0640 shop.war = war 1",
        ],
    );
    revision("2", "b.class");
    host.has(
        "tomcat/webapps",
        &[
            "0755 ROOT/",
            "0644 ROOT/index.jsp = root",
            "0755 shop/",
            "0640 shop/b.class = war 2",
            "0640 shop.war = war 2",
        ],
    );
    assert_eq!(host.read("log.txt"), "start 1\nstop 1\nstart 2\n");
}

#[test]
fn a_node_application_keeps_its_links_to_commands() {
    let host = Host::new();
    let spec = "version: 0.0\nos: linux\nfiles:\n- {source: /dist, destination: @/srv/web}\n- {source: /node_modules, destination: @/srv/web/node_modules}\n";
    host.deploy(
        "1",
        spec,
        &[
            ("dist/server.js", 0o644, "1"),
            ("node_modules/.bin/tsc", 0, "../typescript/bin/tsc"),
            ("node_modules/.bin/pm2", 0, "../@acme/pm2/bin/pm2"),
            ("node_modules/.package-lock.json", 0o644, "{}"),
            ("node_modules/typescript/bin/tsc", 0o755, "#!/usr/bin/env node"),
            ("node_modules/@acme/pm2/bin/pm2", 0o755, "1"),
        ],
    );
    host.has(
        "srv/web",
        &[
            "0755 node_modules/",
            "0755 node_modules/.bin/",
            "link node_modules/.bin/pm2 -> ../@acme/pm2/bin/pm2",
            "link node_modules/.bin/tsc -> ../typescript/bin/tsc",
            "0644 node_modules/.package-lock.json = {}",
            "0755 node_modules/@acme/",
            "0755 node_modules/@acme/pm2/",
            "0755 node_modules/@acme/pm2/bin/",
            "0755 node_modules/@acme/pm2/bin/pm2 = 1",
            "0755 node_modules/typescript/",
            "0755 node_modules/typescript/bin/",
            "0755 node_modules/typescript/bin/tsc = #!/usr/bin/env node",
            "0644 server.js = 1",
        ],
    );
    // One command goes, one changes, one that was a link is a file.
    host.deploy(
        "2",
        spec,
        &[
            ("dist/server.js", 0o644, "2"),
            ("node_modules/.bin/pm2", 0o755, "a file now"),
            ("node_modules/.bin/vite", 0, "../vite/vite.js"),
            ("node_modules/vite/vite.js", 0o755, "vite"),
            ("node_modules/@acme/pm2/bin/pm2", 0o755, "2"),
        ],
    );
    host.has(
        "srv/web",
        &[
            "0755 node_modules/",
            "0755 node_modules/.bin/",
            "0755 node_modules/.bin/pm2 = a file now",
            "link node_modules/.bin/vite -> ../vite/vite.js",
            "0755 node_modules/@acme/",
            "0755 node_modules/@acme/pm2/",
            "0755 node_modules/@acme/pm2/bin/",
            "0755 node_modules/@acme/pm2/bin/pm2 = 2",
            "0755 node_modules/vite/",
            "0755 node_modules/vite/vite.js = vite",
            "0644 server.js = 2",
        ],
    );
}

#[test]
fn cron_files_are_roots_and_0644_beside_others() {
    if !is_root("cron") {
        return;
    }
    let host = Host::new();
    host.write("cron.d", &[("backup", 0o644, "by hand")]);
    let entry = |name: &&str| {
        format!(
            "- {{object: @/cron.d/{name}, owner: root, group: root, mode: '0644', type: [file]}}\n"
        )
    };
    let spec = |names: &[&str]| {
        let permissions: String = names.iter().map(entry).collect();
        format!(
            "version: 0.0\nos: linux\nfiles:\n- {{source: cron, destination: @/cron.d}}\npermissions:\n{permissions}"
        )
    };
    let files: &[File<'_>] =
        &[("cron/app-hourly", 0o664, "0 * * * * root 1"), ("cron/app-nightly", 0o755, "5 3 * * *")];
    host.write("1", files);
    // As a checkout by somebody else has it.
    for name in ["app-hourly", "app-nightly"] {
        std::os::unix::fs::chown(host.dir.join("1/cron").join(name), Some(1), Some(1)).unwrap();
    }
    host.deploy("1", &spec(&["app-hourly", "app-nightly"]), &[]);
    host.has(
        "cron.d",
        &[
            "0644 app-hourly = 0 * * * * root 1",
            "0644 app-nightly = 5 3 * * *",
            "0644 backup = by hand",
        ],
    );
    host.deploy("2", &spec(&["app-hourly"]), &[("cron/app-hourly", 0o664, "9 * * * * root 2")]);
    host.has("cron.d", &["0644 app-hourly = 9 * * * * root 2", "0644 backup = by hand"]);
}

#[test]
fn a_secret_configuration_is_its_owners_alone() {
    if !is_root("secret configuration") {
        return;
    }
    let host = Host::new();
    let spec = "version: 0.0
os: linux
files:
- {source: conf, destination: @/etc/billing}
permissions:
- {object: @/etc, pattern: billing, owner: daemon, group: bin, mode: 750, type: [directory]}
- {object: @/etc/billing, pattern: '*.key', owner: daemon, group: daemon, mode: 400, type: [file]}
- {object: @/etc/billing/db.conf, owner: daemon, group: bin, mode: 600}
";
    let revision = |number: &str| {
        host.deploy(
            number,
            spec,
            &[
                ("conf/db.conf", 0o644, &format!("password={number}")),
                ("conf/tls.key", 0o644, &format!("key {number}")),
                ("conf/public.conf", 0o644, number),
            ],
        );
        host.has(
            "etc",
            &[
                "0750 billing/ 1:2",
                &format!("0600 billing/db.conf = password={number} 1:2"),
                &format!("0644 billing/public.conf = {number}"),
                &format!("0400 billing/tls.key = key {number} 1:1"),
            ],
        );
    };
    revision("1");
    revision("2");
}

#[test]
fn a_python_environment_is_replaced_with_its_links() {
    let host = Host::new();
    let spec = "version: 0.0\nos: linux\nfiles:\n- {source: venv, destination: @/opt/app/venv}\n- {source: app, destination: @/opt/app}\n";
    let revision = |number: &str, python: &str| {
        let package = format!("venv/lib/{python}/site-packages/flask/__init__.py");
        host.deploy(
            number,
            spec,
            &[
                ("venv/bin/python", 0, "/usr/bin/python3"),
                ("venv/bin/python3", 0, "python"),
                ("venv/bin/gunicorn", 0o755, "#!@/opt/app/venv/bin/python"),
                ("venv/bin/activate", 0o644, number),
                ("venv/pyvenv.cfg", 0o644, python),
                (&package, 0o644, number),
                ("app/wsgi.py", 0o644, number),
            ],
        );
        let shebang = format!("#!{}/opt/app/venv/bin/python", host.dir.display());
        host.has(
            "opt/app",
            &[
                "0755 venv/",
                "0755 venv/bin/",
                &format!("0644 venv/bin/activate = {number}"),
                &format!("0755 venv/bin/gunicorn = {shebang}"),
                "link venv/bin/python -> /usr/bin/python3",
                "link venv/bin/python3 -> python",
                "0755 venv/lib/",
                &format!("0755 venv/lib/{python}/"),
                &format!("0755 venv/lib/{python}/site-packages/"),
                &format!("0755 venv/lib/{python}/site-packages/flask/"),
                &format!("0644 venv/lib/{python}/site-packages/flask/__init__.py = {number}"),
                &format!("0644 venv/pyvenv.cfg = {python}"),
                &format!("0644 wsgi.py = {number}"),
            ],
        );
    };
    revision("1", "python3.11");
    revision("2", "python3.12");
}

#[test]
fn a_log_directory_that_a_hook_made_survives() {
    let host = Host::new();
    let spec = "version: 0.0
os: linux
files:
- {source: app, destination: @/srv/app}
hooks:
  AfterInstall: [{location: logs.sh}]
";
    let hook = |number| {
        format!(
            "#!/bin/sh\nset -e\numask 027\nmkdir -p @/srv/app/logs\necho -n {number} >> @/srv/app/logs/app.log\n"
        )
    };
    host.deploy("1", spec, &[("app/run", 0o755, "1"), ("logs.sh", 0o755, &hook(1))]);
    host.has("srv/app", &["0750 logs/", "0640 logs/app.log = 1", "0755 run = 1"]);
    host.deploy("2", spec, &[("app/run", 0o755, "2"), ("logs.sh", 0o755, &hook(2))]);
    host.has("srv/app", &["0750 logs/", "0640 logs/app.log = 12", "0755 run = 2"]);
}

#[test]
fn renamed_files_and_dropped_directories_leave_nothing_behind() {
    let host = Host::new();
    let spec = "version: 0.0\nos: linux\nfiles:\n- {source: /www, destination: @/www}\n";
    host.deploy(
        "1",
        spec,
        &[
            ("www/index.html", 0o644, "1"),
            ("www/static/css/site.css", 0o644, "css"),
            ("www/static/js/vendor/jquery.js", 0o644, "js"),
            ("www/conf", 0o600, "a file"),
            ("www/docs/a", 0o644, "a directory"),
        ],
    );
    // Made by others: one in a directory that stays wanted, one in a directory that goes.
    host.write("www", &[("static/js/mine.js", 0o644, "mine")]);
    host.deploy(
        "2",
        spec,
        &[
            ("www/index.htm", 0o644, "2"),
            ("www/assets/site.css", 0o640, "css"),
            ("www/conf/main", 0o644, "in a directory"),
            ("www/docs", 0o644, "a file now"),
        ],
    );
    host.has(
        "www",
        &[
            "0755 assets/",
            "0640 assets/site.css = css",
            "0755 conf/",
            "0644 conf/main = in a directory",
            "0644 docs = a file now",
            "0644 index.htm = 2",
            "0755 static/",
            "0755 static/js/",
            "0644 static/js/mine.js = mine",
        ],
    );
}

#[test]
fn a_file_made_by_hand_is_overwritten_and_then_ours_to_remove() {
    let host = Host::new();
    let spec = "version: 0.0\nos: linux\nfiles:\n- {source: etc, destination: @/etc}\nfile_exists_behavior: OVERWRITE\n";
    host.write("etc", &[("app.conf", 0o600, "by hand, long"), ("other.conf", 0o600, "by hand")]);
    host.deploy(
        "1",
        spec,
        &[("etc/app.conf", 0o644, "1"), ("etc/conf.d/a", 0o644, "1"), ("etc/keep", 0o755, "1")],
    );
    host.has(
        "etc",
        &[
            "0644 app.conf = 1",
            "0755 conf.d/",
            "0644 conf.d/a = 1",
            "0755 keep = 1",
            "0600 other.conf = by hand",
        ],
    );
    host.deploy("2", spec, &[("etc/keep", 0o700, "2")]);
    host.has("etc", &["0700 keep = 2", "0600 other.conf = by hand"]);
}

#[test]
fn a_retained_configuration_stays_edited() {
    let host = Host::new();
    let spec = "version: 0.0\nos: linux\nfiles:\n- {source: etc, destination: @/etc}\nfile_exists_behavior: RETAIN\n";
    host.write("etc", &[("site.conf", 0o600, "edited")]);
    let revision = |number: &str| {
        host.deploy(
            number,
            spec,
            &[("etc/site.conf", 0o644, number), ("etc/default.conf", 0o644, number)],
        );
        // RETAIN keeps what was there before the first deployment, not our own last revision.
        host.has("etc", &[&format!("0644 default.conf = {number}"), "0600 site.conf = edited"]);
    };
    revision("1");
    revision("2");
    // A revision without them leaves what it never owned.
    host.deploy("3", spec, &[("etc/new.conf", 0o644, "3")]);
    host.has("etc", &["0644 new.conf = 3", "0600 site.conf = edited"]);
}

#[test]
fn several_sources_meet_in_one_directory_and_permissions_tell_them_apart() {
    let host = Host::new();
    let spec = "version: 0.0
os: linux
files:
- {source: bin, destination: @/opt/tool}
- {source: lib, destination: @/opt/tool}
- {source: README, destination: @/opt/tool}
- {source: conf/tool.ini, destination: @/opt/tool/etc}
permissions:
- {object: @/opt/tool, pattern: '*.sh', mode: 755, type: [file]}
- {object: @/opt/tool, pattern: '**', except: ['*.sh'], mode: 640, type: [file]}
- {object: @/opt/tool, mode: 751, type: [directory]}
";
    host.deploy(
        "1",
        spec,
        &[
            ("bin/run.sh", 0o644, "run 1"),
            ("lib/common.sh", 0o600, "common 1"),
            ("lib/sub/data", 0o777, "data 1"),
            ("README", 0o444, "readme 1"),
            ("conf/tool.ini", 0o644, "ini 1"),
            ("conf/not-deployed", 0o644, ""),
        ],
    );
    host.has(
        "opt/tool",
        &[
            "0640 README = readme 1",
            "0755 common.sh = common 1",
            "0751 etc/",
            "0640 etc/tool.ini = ini 1",
            "0755 run.sh = run 1",
            "0751 sub/",
            "0640 sub/data = data 1",
        ],
    );
    host.deploy(
        "2",
        spec,
        &[
            ("bin/run.sh", 0o600, "run 2"),
            ("bin/common.sh", 0o600, "moved"),
            ("lib/sub2/data", 0o777, "data 2"),
            ("README", 0o444, "readme 2"),
            ("conf/tool.ini", 0o755, "ini 2"),
        ],
    );
    host.has(
        "opt/tool",
        &[
            "0640 README = readme 2",
            "0755 common.sh = moved",
            "0751 etc/",
            "0640 etc/tool.ini = ini 2",
            "0755 run.sh = run 2",
            "0751 sub2/",
            "0640 sub2/data = data 2",
        ],
    );
}
