module example.mil/carried

go 1.24

require github.com/mattermost/mattermost/server/public v0.1.21
