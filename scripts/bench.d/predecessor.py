"""Runs the Python tool 0.3.1 with the test bed's server in the place of api.github.com.

predecessor.py DIRECTORY SERVER STATE ARGUMENT...

DIRECTORY has its package, and the packages that it needs. Its code runs as it is, except for
where it downloads from and where its state is.
"""

import base64
import os
import sys
import urllib.request

DIRECTORY, SERVER, STATE = sys.argv[1:4]
sys.path[:0] = DIRECTORY.split(os.pathsep)
sys.argv[1:4] = []

import yaml  # noqa: E402

import codedeploy_multideployer.multideployer as tool  # noqa: E402

GITHUB = "https://api.github.com/repos/"
download = urllib.request.urlretrieve


def retrieve(url, path):
    repository, commit = url.removeprefix(GITHUB).split("/tarball/")
    token = os.environ["MULTIDEPLOYER_GITHUB_TOKEN"]
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    opener = urllib.request.build_opener()
    opener.addheaders = [("Authorization", f"Basic {basic}")]
    urllib.request.install_opener(opener)
    return download(f"{SERVER}/{repository}.git/{commit}-top.tar.gz", path)


urllib.request.urlretrieve = retrieve
# Newer versions want to be told that nothing is executed.
load = yaml.load
yaml.load = lambda text, loader=yaml.SafeLoader: load(text, loader)
tool.MULTIDEPLOYER_DIR = STATE
os.makedirs(STATE, exist_ok=True)
tool.start()
