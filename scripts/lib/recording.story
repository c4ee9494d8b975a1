# seconds to look, exit code, command; what is run instead :: what is shown
2.5 0 multideployer plan
2.5 0 multideployer deploy
1.8 0 multideployer deploy  # again: nothing differs, nothing is touched
0.8 0 cp tuesday.yaml multideployer.yaml  # new releases of all three
4.0 4 LIFECYCLE_EVENT=AfterInstall DEPLOYMENT_ID=d-7GX2PQ4MN sh after_install.sh :: sh after_install.sh  # as CodeDeploy runs it; this is all that it shows
poster
2.0 0 multideployer rollback api
4.0 0 multideployer status
